"""Django tasks in real workers: forked and inline, stopped, killed, reloaded; nothing is lost or done twice."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from django.db import connection

from reproq_prefork.django import bulk_enqueue, call
from reproq_prefork.django.families.compat import families
from reproq_prefork.executors.process_io import CANCEL_GRACE_S
from tests.django.app import tasks as typed_tasks
from tests.django.app.models import Note
from tests.support.django.workers import Workers
from tests.support.supervisor.supervisor import Supervisor, run_row
from tests.support.waiting import wait_until

tasks: Any = typed_tasks
FAMILY = families()[0]
STATUSES = FAMILY.statuses
FAR_FUTURE = datetime(2999, 1, 1, tzinfo=UTC)
BOTH = pytest.mark.parametrize("executor", ["fork", "inline"])


def finished(result: Any, timeout_s: float = 30.0) -> Any:
    return result.wait(timeout=timeout_s)


@BOTH
def test_tasks_run_and_their_results_come_back(django_workers: Workers, executor: str) -> None:
    with django_workers("--executor", executor):
        results = [tasks.add.enqueue(1, 2), tasks.add_asynchronously.enqueue(3, 4)]
        note = tasks.write_note.enqueue("hello")
        failed = tasks.fail.using(max_attempts=1).enqueue("oh no")
        assert [finished(result).return_value for result in results] == [3, 7]
        assert Note.objects.get(pk=finished(note).return_value).text == "hello"
        assert finished(failed).status == STATUSES.FAILED
        assert failed.errors[0].exception_class is ValueError


@BOTH
@pytest.mark.parametrize("name", ["leave_a_transaction_open", "turn_autocommit_off"])
def test_a_task_that_leaves_a_transaction_open_fails_and_costs_no_later_task_its_changes(
    django_workers: Workers, executor: str, name: str
) -> None:
    with django_workers("--executor", executor, environ={"REPROQ_TEST_CONNECTION": '{"CONN_MAX_AGE": null}'}):
        for number in range(2):
            guilty = finished(getattr(tasks, name).using(max_attempts=1).enqueue(f"lost {number}"))
            assert guilty.status == STATUSES.FAILED
            assert "left a transaction open (in DATABASES: default)" in guilty.errors[0].traceback
            finished(tasks.write_note.enqueue(f"kept {number}"))
    assert sorted(note.text for note in Note.objects.all()) == ["kept 0", "kept 1"]


def test_what_a_task_sets_for_itself_is_not_there_for_the_next_one(django_workers: Workers) -> None:
    with django_workers("--executor", "inline"):
        runs = [tasks.change_what_django_keeps_for_a_request.enqueue() for _ in range(3)]
        first, *others = [finished(run).return_value for run in runs]
    assert others == [first, first]
    assert first[2] == "none"


@pytest.mark.parametrize("environ", [{}, {"REPROQ_TEST_NO_TIME_ZONES": "1"}], ids=["aware", "naive"])
def test_the_times_of_a_task_follow_djangos_time_zone_setting(
    django_workers: Workers, environ: dict[str, str]
) -> None:
    with django_workers("--executor", "inline", environ=environ):
        seconds = finished(tasks.tell_seconds_since_its_times.enqueue()).return_value
    assert all(0 <= each < 60 for each in seconds)


@BOTH
def test_a_task_past_its_deadline_gets_an_exception_and_may_still_return(
    django_workers: Workers, tmp_path: Path, executor: str
) -> None:
    with django_workers("--executor", executor):
        polite = tasks.sleep.using(timeout=0.3, max_attempts=1).enqueue(30)
        answers = tasks.answer_at_the_deadline.using(timeout=0.3, max_attempts=1).enqueue()
        assert finished(polite).errors[0].exception_class.__name__ == "TaskTimeout"
        assert finished(answers).return_value == "in time"


@BOTH
def test_a_running_task_is_cancelled_at_once(
    django_workers: Workers, django_database: str, executor: str
) -> None:
    with django_workers("--executor", executor):
        result = tasks.sleep.enqueue(60)
        wait_until(lambda: refreshed(result).status == STATUSES.RUNNING, 20, "the task to run")
        asked_at = time.monotonic()
        assert result.cancel()
        finished(result)
        assert time.monotonic() - asked_at < 5  # half a second, on a machine that is not overloaded
        assert result.status == STATUSES.FAILED
        assert result.errors[-1].exception_class.__name__ == "TaskCancelled"
        assert result.attempts == 1


@BOTH
def test_a_cancelled_task_may_still_succeed(django_workers: Workers, executor: str) -> None:
    with django_workers("--executor", executor):
        result = tasks.count_until_cancelled.enqueue()
        wait_until(lambda: (refreshed(result).metadata or {}).get("count", 0) > 2, 20, "progress")
        result.cancel()
        finished(result)
        assert (result.status, result.errors) == (STATUSES.SUCCESSFUL, [])
        assert result.return_value == result.metadata["count"]
        assert result.cancel_requested


@BOTH
def test_a_cancelled_task_that_ignores_its_exception_is_killed_after_a_grace(
    django_workers: Workers, tmp_path: Path, executor: str
) -> None:
    diary = tmp_path / "diary"
    with django_workers("--executor", executor):
        result = tasks.be_stubborn.using(max_attempts=1).enqueue(str(diary))
        wait_until(diary.exists, 20, "the task to start")
        result.cancel()
        assert finished(result).errors[-1].exception_class.__name__ == "TaskCancelled"
        ended_at = time.monotonic()
    heard = [line.split() for line in diary.read_text().splitlines()]
    assert [what for what, _ in heard[:2]] == ["started", "TaskCancelled"], "it is told first"
    assert CANCEL_GRACE_S <= ended_at - float(heard[1][1]) < CANCEL_GRACE_S + 5
    assert result.attempts == 1


def test_a_waiting_task_is_cancelled_without_any_worker(django_database: str) -> None:
    result = tasks.add.enqueue(1, 2)
    assert result.cancel()
    assert (result.status, result.attempts) == (STATUSES.FAILED, 0)


@BOTH
def test_the_end_of_a_killed_task_is_announced(
    django_workers: Workers, django_database: str, tmp_path: Path, executor: str
) -> None:
    heard = tmp_path / "heard"
    environ = {"REPROQ_TEST_HEARD": str(heard)}
    with django_workers("--executor", executor, environ=environ):
        killed = tasks.kill_its_process.using(max_attempts=2).enqueue()
        finished(killed)
        cancelled = tasks.add.using(run_after=FAR_FUTURE).enqueue(1, 2)
        cancelled.cancel()
        wait_until(
            lambda: heard.exists() and len(heard.read_text().splitlines()) >= 2, 20, "both ends to be told"
        )
    lines = heard.read_text().splitlines()
    assert f"{killed.id} FAILED" in lines
    assert f"{cancelled.id} FAILED" in lines
    assert lines.count(f"{killed.id} FAILED") == 1, "not for the retry"


def test_the_end_of_a_run_cancelled_between_claim_and_start_is_announced(
    django_workers: Workers, django_database: str, tmp_path: Path
) -> None:
    """A long run of an inline batch hands back the runs behind it, which ends the cancelled ones."""
    heard = tmp_path / "heard"
    calls = [call(tasks.add, number, 0) for number in range(400)]
    for place in (200, 300):  # it claims many at a time by then
        calls[place] = call(tasks.cancel_the_next, 20, 0.5)
    results = bulk_enqueue(calls)
    environ = {"REPROQ_TEST_HEARD": str(heard)}
    with django_workers("--executor", "inline", workers=1, environ=environ):
        for result in results:
            finished(result)
        wait_until(lambda: len(set(told(heard))) == len(results), 20, "each end to be told")
    assert Counter(told(heard)) == {(result.id, result.status.value): 1 for result in results}
    with psycopg.connect(django_database) as other:
        rows = other.execute("select claims, attempts from task_runs where status = 'CANCELLED'").fetchall()
    assert len(rows) == 40
    assert (1, 0) in rows, "none was claimed when it was cancelled"


def told(heard: Path) -> list[tuple[str, ...]]:
    """The id and the status of each end that was told."""
    return [tuple(line.split()) for line in heard.read_text().splitlines()] if heard.exists() else []


def test_what_a_task_prints_is_kept_with_its_run(django_workers: Workers, django_database: str) -> None:
    with django_workers("--executor", "fork"):
        result = finished(tasks.say.enqueue("hello"))
    with psycopg.connect(django_database) as other:
        run = run_row(other, int(result.id))
    assert run["last_attempt"]["output"] == "hello"
    assert run["last_attempt"]["exit"] == "exit status 0"
    assert run["last_attempt"]["peak_rss_kib"] > 1024


def test_a_run_may_choose_its_executor(django_workers: Workers) -> None:
    with django_workers("--executor", "fork", workers=1) as supervisor:
        (worker,) = supervisor.booted_worker_pids()
        inline = finished(tasks.tell_pid.using(executor="inline").enqueue()).return_value
        forked = finished(tasks.tell_pid.enqueue()).return_value
        assert inline == worker
        assert forked != worker


def test_hup_brings_new_code_and_a_broken_deploy_changes_nothing(
    django_workers: Workers, tmp_path: Path
) -> None:
    version = tmp_path / "version.py"
    version.write_text("VERSION = 1\n")
    with django_workers("--executor", "fork", environ={"REPROQ_TEST_VERSION": str(version)}) as supervisor:
        assert finished(tasks.tell_version.enqueue()).return_value == 1
        version.write_text("this is no Python\n")
        supervisor.send(signal.SIGHUP)
        supervisor.wait_for_log("cannot be loaded")
        assert finished(tasks.tell_version.enqueue()).return_value == 1
        version.write_text(
            "VERSION = 2  # of another size: Python's cache looks at that, and at the second\n"
        )
        supervisor.send(signal.SIGHUP)
        wait_until(
            lambda: finished(tasks.tell_version.enqueue()).return_value == 2, 20, "the new code to be used"
        )


@BOTH
def test_connections_are_never_shared_with_a_fork(django_workers: Workers, executor: str) -> None:
    with django_workers("--executor", executor, workers=1) as supervisor:
        (worker,) = supervisor.booted_worker_pids()
        ports = {finished(tasks.tell_local_port.enqueue()).return_value for _ in range(3)}
        finished(tasks.tell_local_port.using(executor="inline").enqueue())
        own = {each.laddr[1] for each in psutil.Process(worker).net_connections() if len(each.raddr)}
        seen = finished(tasks.tell_sockets.using(executor="fork").enqueue()).return_value
        assert own
        assert own.isdisjoint(seen), "a fork has a socket of its worker"
        if executor == "fork":
            assert own.isdisjoint(ports)


@pytest.mark.fault
@pytest.mark.timeout(180)
@BOTH
def test_500_atomic_tasks_under_kills_write_500_rows(
    django_workers: Workers, django_database: str, executor: str
) -> None:
    count, finished_between_kills = 500, 12
    task = tasks.write_note_atomically.using(max_attempts=1000)
    bulk_enqueue(call(task, str(number)) for number in range(count))
    environ = {"REPROQ_RETRY_BASE": "10ms", "REPROQ_RETRY_MAX": "50ms"}
    kinds = ("worker", "task", "backend") if executor == "fork" else ("worker", "backend")
    kills = 0
    with (
        django_workers("--executor", executor, workers=2, environ=environ) as supervisor,
        psycopg.connect(django_database, autocommit=True) as other,
    ):
        while left(other):
            kill_one(kinds[kills % len(kinds)], supervisor, other)
            kills += 1
            wait_for_progress(other, finished_between_kills)
    connection.close()  # its server process may have been one of those that were ended
    assert kills > 20
    assert sorted(int(note.text) for note in Note.objects.all()) == list(range(count))


def left(other: psycopg.Connection[Any]) -> int:
    row = other.execute("select count(*) from task_runs where status in ('PENDING', 'RUNNING')").fetchone()
    assert row is not None
    return int(row[0])


def wait_for_progress(other: psycopg.Connection[Any], count: int) -> None:
    goal = max(0, left(other) - count)
    wait_until(lambda: left(other) <= goal, 30, "work to go on")


def kill_one(kind: str, supervisor: Supervisor, other: psycopg.Connection[Any]) -> None:
    match kind:
        case "worker":
            pids = supervisor.booted_worker_pids()
        case "task":
            pids = processes_of_tasks(supervisor)
        case _:
            other.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid() and application_name "
                "not like 'reproq-prefork steward%%' order by random() limit 1"
            )
            return
    for pid in pids[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def processes_of_tasks(supervisor: Supervisor) -> list[int]:
    workers = set(supervisor.booted_worker_pids())
    found = []
    for process in supervisor.family():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.ppid() in workers:
                found.append(process.pid)
    return found


def refreshed(result: Any) -> Any:
    result.refresh()
    return result
