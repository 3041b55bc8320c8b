"""What people who come from another database backend count on: queues, exclusion, order, time, pruning."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.utils import timezone

from reproq_prefork.django import bulk_enqueue, call
from reproq_prefork.django.families.compat import families
from tests.django.app import tasks as typed_tasks
from tests.support.checkout import CHECKOUT
from tests.support.django.workers import Workers
from tests.support.waiting import wait_until

tasks: Any = typed_tasks
FAMILY = families()[0]
STATUSES = FAMILY.statuses


def status(result: Any) -> Any:
    result.refresh()
    return result.status


def test_workers_take_all_queues_of_the_backend(django_workers: Workers) -> None:
    with django_workers(workers=1):
        assert tasks.add.enqueue(1, 2).wait(30).return_value == 3
        assert tasks.send_mail.enqueue("ada").wait(30).return_value == "sent to ada"


def test_workers_may_take_some_queues_only(django_workers: Workers, django_database: str) -> None:
    other, mail = tasks.add.enqueue(1, 2), tasks.send_mail.enqueue("ada")
    with django_workers("--queue", "mail", "--drain", workers=1) as supervisor:
        assert supervisor.wait() == 0
    assert status(mail) == STATUSES.SUCCESSFUL
    assert status(other) == STATUSES.READY


def test_workers_may_exclude_a_queue(django_workers: Workers, django_database: str) -> None:
    mail, other = tasks.send_mail.enqueue("ada"), tasks.add.enqueue(1, 2)
    with django_workers("--exclude-queue", "mail", "--drain", workers=1) as supervisor:
        assert supervisor.wait() == 0
    assert status(mail) == STATUSES.READY
    assert status(other) == STATUSES.SUCCESSFUL


def test_no_task_is_given_to_two_workers(
    django_workers: Workers, django_database: str, tmp_path: Path
) -> None:
    diary = tmp_path / "diary"
    with (
        django_workers("--executor", "inline", workers=3),
        django_workers("--executor", "inline", workers=3, log_name="second.log"),
    ):
        results = bulk_enqueue(call(tasks.sign, str(diary), number) for number in range(200))
        assert {result.wait(60).status for result in results} == {STATUSES.SUCCESSFUL}
    assert all(result.attempts == 1 for result in results)
    assert Counter(map(int, diary.read_text().split())) == Counter(range(200))


def test_the_order_is_priority_then_age(
    django_workers: Workers, django_database: str, tmp_path: Path
) -> None:
    diary = tmp_path / "diary"
    for number, priority in ((1, 0), (2, -5), (3, 5), (4, 0), (5, 100)):
        tasks.sign.using(priority=priority).enqueue(str(diary), number)
    with django_workers("--drain", workers=1) as supervisor:
        assert supervisor.wait() == 0
    assert diary.read_text().split() == ["5", "3", "1", "4", "2"]


def test_a_scheduled_task_waits_until_its_time(django_workers: Workers) -> None:
    due = timezone.now() + timedelta(seconds=1)
    with django_workers(workers=1):
        later = tasks.add.using(run_after=due).enqueue(1, 2)
        now = tasks.add.enqueue(3, 4)
        assert now.wait(30).return_value == 7
        assert later.wait(30).return_value == 3
    assert later.started_at >= due


def test_finished_tasks_are_pruned_and_others_kept(django_database: str) -> None:
    old, new, waiting = (tasks.add.enqueue(1, 2) for _ in range(3))
    with psycopg.connect(django_database) as other:
        other.execute(
            "update task_runs set status = 'SUCCESSFUL', result = '3', finished_at = now() - "
            "case id when %s then interval '20 days' else interval '1 day' end where id <> %s",
            [int(old.id), int(waiting.id)],
        )
    told = subprocess.run(
        [sys.executable, "-m", "reproq_prefork", "prune", "--older-than", "14d"],
        env={**os.environ, "DATABASE_URL": django_database, "REPROQ_DJANGO": "tests.django.settings"},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "1" in told.stdout
    assert status(new) == STATUSES.SUCCESSFUL
    assert status(waiting) == STATUSES.READY
    with pytest.raises(FAMILY.exception("TaskResultDoesNotExist")):
        old.refresh()


def test_manage_py_becomes_a_worker_that_runs_tasks(django_database: str, tmp_path: Path) -> None:
    environ = {
        **os.environ,
        "DATABASE_URL": django_database,
        "DJANGO_SETTINGS_MODULE": "tests.django.settings",
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "django", "reproq_worker", "--workers", "1"],
            env=environ,
            cwd=CHECKOUT,
            stdout=output,
            stderr=output,
        )
    try:
        wait_until(lambda: b"ready: 1 worker," in log.read_bytes(), 30, "the worker to be ready")
        assert tasks.add.enqueue(1, 2).wait(30).return_value == 3
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
