"""Row 40 of the fault list: two queue databases of one Django site, a master for each, and equal ids in both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from reproq_prefork import cancel
from tests.support.postgres.databases import apply_migrations, new_database
from tests.support.postgres.servers import Server
from tests.support.supervisor.supervisor import Connection, Supervisor, add_run, run_row, wait_for_status
from tests.support.waiting import wait_until

SETTINGS = """
import importlib.util, os
from tests.support.django.databases import connection_settings

SECRET_KEY = "of the tests"
USE_TZ = True
DATABASES = {
    "default": connection_settings(os.environ["HOME_URL"]),
    "second": connection_settings(os.environ["SECOND_URL"]),
}
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    *(["django_tasks"] if importlib.util.find_spec("django_tasks") else []),
    "reproq_prefork.django",
    "jobs",
]
TASKS = {
    "default": {"BACKEND": "reproq_prefork.django.ReproqBackend", "OPTIONS": {"database": "default"}},
    "other": {"BACKEND": "reproq_prefork.django.ReproqBackend", "OPTIONS": {"database": "second"}},
}
"""
APPS = """
import os
from functools import partial

from django.apps import AppConfig
from reproq_prefork.django.families.compat import families

class Jobs(AppConfig):
    name = "jobs"

    def ready(self):
        for family in families():
            for name in ("task_started", "task_finished"):
                getattr(family.signals, name).connect(partial(hear, name), weak=False)

def hear(name, task_result, **more):
    with open(os.environ["HEARD"], "a") as file:
        file.write(f"{name} {task_result.id} of {task_result.args[0]} {task_result.backend}\\n")
"""
TASKS = """
import os, signal, time
from pathlib import Path

import django
from django.conf import settings
from django.db import connections
from reproq_prefork.django import reproq_options

if django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task

@task
def hold(name, path):
    while not Path(path).exists():
        time.sleep(0.02)
    return "held " + name

@task(takes_context=True)
@reproq_options(atomic=True)
def write(context, name):
    alias = settings.TASKS[context.task_result.backend]["OPTIONS"]["database"]
    with connections[alias].cursor() as cursor:
        cursor.execute("insert into notes values (%s)", [name])
    return "written " + name

@task(takes_context=True)
def progress(context, name):
    context.save_metadata(of=name)
    return "saved " + name

@task(takes_context=True)
def look(context, name):
    own = context.task_result
    own.refresh()
    return [str(own.status), own.args[0]]

@task(takes_context=True)
def cancel_itself(context, name):
    context.task_result.cancel()
    time.sleep(60)

@task(takes_context=True)
def wait_for_another(context, name):
    another = shout.using(backend=context.task_result.backend).enqueue(name)
    return another.wait(timeout=20).return_value

@task
def shout(name):
    return name.upper()

@task
@reproq_options(max_attempts=1)
def die(name):
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Place(NamedTuple):
    """One of the two databases, with what its own master has heard."""

    name: str
    url: str
    connection: Connection
    heard_path: Path

    def add(self, task: str, *args: object, **columns: object) -> int:
        payload = {"v": 1, "task": f"jobs.tasks.{task}", "args": [self.name, *args], "kwargs": {}}
        return add_run(self.connection, payload, **columns)

    def row(self, run_id: int) -> dict[str, Any]:
        return run_row(self.connection, run_id)

    def ended(self, run_id: int, *statuses: str) -> dict[str, Any]:
        return wait_for_status(self.connection, run_id, *statuses)

    def heard(self, signal: str, run_id: int) -> list[str]:
        """What was heard of this run, whatever its name."""
        lines = self.heard_path.read_text().splitlines() if self.heard_path.exists() else []
        return [line for line in lines if line.startswith(f"{signal} {run_id} ")]

    @property
    def backend(self) -> str:
        return {"home": "default", "second": "other"}[self.name]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "site_settings.py").write_text(SETTINGS)
    (tmp_path / "jobs/__init__.py").touch()
    (tmp_path / "jobs/apps.py").write_text(APPS)
    (tmp_path / "jobs/tasks.py").write_text(TASKS)
    return tmp_path


@pytest.fixture
def places(
    request: pytest.FixtureRequest, server: Server, template_url: str, tmp_path: Path
) -> Iterator[tuple[Place, Place]]:
    """Two databases, or as its parameter says two schemas of one."""
    with ExitStack() as stack:
        found = []
        url = ""
        for name in ("home", "second"):
            if url and getattr(request, "param", "databases") == "schemas":
                url = with_a_second_schema(url)
            else:
                url = stack.enter_context(new_database(server.url, template_url))
            connection = stack.enter_context(psycopg.connect(url, autocommit=True))
            connection.execute("create table notes (text text)")
            found.append(Place(name, url, connection, tmp_path / f"heard-{name}"))
        yield found[0], found[1]


def with_a_second_schema(url: str) -> str:
    with psycopg.connect(url) as connection:
        connection.execute("create schema second")
    url = f"{url}?options=-csearch_path%3Dsecond"
    apply_migrations(url)
    return url


@pytest.fixture(params=["inline", "fork"])
def masters(request: pytest.FixtureRequest, site: Path, places: tuple[Place, Place]) -> Iterator[None]:
    with ExitStack() as stack:
        for place in places:
            environ = {
                "EXECUTOR_COMMAND": "",
                "HOME_URL": places[0].url,
                "SECOND_URL": places[1].url,
                "HEARD": str(place.heard_path),
            }
            arguments = (
                "--django",
                "site_settings",
                "--database-url",
                place.url,
                "--executor",
                request.param,
            )
            stack.enter_context(
                Supervisor(
                    place.url, site, workers=2, environ=environ, arguments=arguments, least_privilege=False
                )
            )
        yield


BOTH_WAYS = pytest.mark.parametrize("way", [(0, 1), (1, 0)], ids=["second acts", "home acts"])


class Pair:
    """A run that is held in one database, and one of the same id in the other."""

    def __init__(
        self, places: tuple[Place, Place], way: tuple[int, int], task: str, directory: Path, **columns: object
    ) -> None:
        self.holding, self.acting = places[way[0]], places[way[1]]
        self.go = directory / "go"
        self.run_id = self.holding.add("hold", str(self.go))
        self.holding.ended(self.run_id, "RUNNING")
        assert self.acting.add(task, **columns) == self.run_id
        self.before = self.holding.row(self.run_id)

    def the_other_is_as_it_was(self) -> None:
        """And ends in its own time, with its own result, and its own signals."""
        assert self.holding.row(self.run_id) == self.before
        self.go.touch()
        assert (
            self.holding.ended(self.run_id, "SUCCESSFUL", "FAILED")["result"] == f"held {self.holding.name}"
        )
        heard = f"task_finished {self.run_id} of {self.holding.name} {self.holding.backend}"
        assert self.holding.heard("task_finished", self.run_id) == [heard]


@BOTH_WAYS
def test_40_an_atomic_task_completes_its_own_run_and_not_the_run_with_its_id_elsewhere(
    masters: None, places: tuple[Place, Place], way: tuple[int, int], tmp_path: Path
) -> None:
    pair = Pair(places, way, "write", tmp_path, atomic=True)
    row = pair.acting.ended(pair.run_id, "SUCCESSFUL", "FAILED")
    assert (row["status"], row["result"], row["attempts"]) == ("SUCCESSFUL", f"written {pair.acting.name}", 1)
    pair.the_other_is_as_it_was()
    for place, notes in ((pair.acting, [(pair.acting.name,)]), (pair.holding, [])):
        assert place.connection.execute("select text from notes").fetchall() == notes


@BOTH_WAYS
def test_40_metadata_is_saved_with_the_tasks_own_run(
    masters: None, places: tuple[Place, Place], way: tuple[int, int], tmp_path: Path
) -> None:
    pair = Pair(places, way, "progress", tmp_path)
    assert pair.acting.ended(pair.run_id, "SUCCESSFUL")["metadata"] == {"of": pair.acting.name}
    pair.the_other_is_as_it_was()


@BOTH_WAYS
def test_40_a_task_reads_its_own_result(
    masters: None, places: tuple[Place, Place], way: tuple[int, int], tmp_path: Path
) -> None:
    pair = Pair(places, way, "look", tmp_path)
    assert pair.acting.ended(pair.run_id, "SUCCESSFUL")["result"] == ["RUNNING", pair.acting.name]
    pair.the_other_is_as_it_was()


@BOTH_WAYS
def test_40_a_task_that_cancels_itself_cancels_no_other(
    masters: None, places: tuple[Place, Place], way: tuple[int, int], tmp_path: Path
) -> None:
    pair = Pair(places, way, "cancel_itself", tmp_path)
    pair.acting.ended(pair.run_id, "CANCELLED")
    pair.the_other_is_as_it_was()


@BOTH_WAYS
def test_40_a_task_waits_for_the_run_that_it_has_enqueued(
    masters: None, places: tuple[Place, Place], way: tuple[int, int], tmp_path: Path
) -> None:
    pair = Pair(places, way, "wait_for_another", tmp_path)
    assert pair.acting.ended(pair.run_id, "SUCCESSFUL")["result"] == pair.acting.name.upper()
    pair.the_other_is_as_it_was()


@BOTH_WAYS
@pytest.mark.parametrize("end", ["cancelled", "killed"])
def test_40_a_worker_announces_the_end_of_the_run_in_its_own_database(
    masters: None, places: tuple[Place, Place], way: tuple[int, int], tmp_path: Path, end: str
) -> None:
    if end == "cancelled":
        pair = Pair(places, way, "shout", tmp_path, run_after="2999-01-01")
        cancel(pair.acting.connection, pair.run_id)
    else:
        pair = Pair(places, way, "die", tmp_path, max_attempts=1)
    pair.acting.ended(pair.run_id, "CANCELLED", "FAILED")
    heard = f"task_finished {pair.run_id} of {pair.acting.name} {pair.acting.backend}"
    wait_until(lambda: pair.acting.heard("task_finished", pair.run_id), 20, "its end to be announced")
    assert pair.acting.heard("task_finished", pair.run_id) == [heard]
    wait_until(lambda: pair.acting.row(pair.run_id)["finish_due_at"] is None, 20, "nothing more to be due")
    pair.the_other_is_as_it_was()


@pytest.mark.parametrize("places", ["databases", "schemas"], indirect=True)
def test_40_results_are_not_mixed_up_if_every_id_is_used_twice(
    masters: None, places: tuple[Place, Place]
) -> None:
    """Many runs at once, with everything a worker may do to a run: no run affects the one with its id."""
    tasks = ("write", "progress", "look", "shout")
    added = [
        (place, task, place.add(task, atomic=task == "write"))
        for _ in range(15)
        for task in tasks
        for place in places
    ]
    for place, task, run_id in added:
        row = place.ended(run_id, "SUCCESSFUL", "FAILED")
        assert row["status"] == "SUCCESSFUL", json.dumps(row["errors"])
        expected = {
            "write": f"written {place.name}",
            "progress": f"saved {place.name}",
            "look": ["RUNNING", place.name],
            "shout": place.name.upper(),
        }
        assert row["result"] == expected[task]
        assert row["metadata"] == ({"of": place.name} if task == "progress" else None)
        heard = [f"task_finished {run_id} of {place.name} {place.backend}"]
        wait_until(lambda: place.heard("task_finished", run_id), 20, "its end")  # noqa: B023
        assert place.heard("task_finished", run_id) == heard
    for place in places:
        assert place.connection.execute("select distinct text from notes").fetchall() == [(place.name,)]
