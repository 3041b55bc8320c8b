"""Django's own tests/tasks pass on our backend, in both families of tasks that are installed here.

They are of the Django release that is installed, and are downloaded when they are first run. Without a network
they are skipped; in CI that is an error.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import django
import pytest
from django.db import connection
from django.test import TransactionTestCase

from tests.django.upstream.backends import LikeTheImmediate
from tests.django.upstream.classes import Family
from tests.django.upstream.log_records import FILE_VARIABLE
from tests.django.upstream.skips import SKIPS
from tests.django.upstream.sources import NoSources, suite_for_the_backport, suite_of_django
from tests.support.checkout import CHECKOUT
from tests.support.django.databases import pointed_at
from tests.support.postgres.databases import new_database
from tests.support.postgres.servers import Server
from tests.support.supervisor.supervisor import Supervisor

TESTS_FOR_THE_BACKPORT = "6.0"  # of the release that first had what the backport has


def families() -> Iterator[Family]:
    if django.VERSION >= (6, 0):
        yield Family("django.tasks", suite_of_django(django.get_version()), "tasks")
    if importlib.util.find_spec("django_tasks"):
        directory = suite_for_the_backport(TESTS_FOR_THE_BACKPORT)
        yield Family("django_tasks", directory, "tasks_of_backport")


try:
    FAMILIES = list(families())
except NoSources as reason:
    if os.environ.get("CI") == "true":
        raise
    pytest.skip(f"Django's own tests cannot be downloaded: {reason}", allow_module_level=True)


def upstream_classes() -> Iterator[tuple[str, type[TransactionTestCase]]]:
    for family in FAMILIES:
        for upstream_class in family.classes():
            yield f"Test{upstream_class.__name__}[{family.module}]", upstream_class


globals().update(upstream_classes())


@pytest.fixture(scope="module")
def database_without_workers(server: Server, django_template_url: str) -> Iterator[str]:
    with new_database(server.url, django_template_url) as url:
        yield url


@pytest.fixture(scope="module")
def database_with_workers(
    server: Server, django_template_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("upstream")
    (records := directory / "records").touch()
    paths = os.pathsep.join(str(family.directory) for family in FAMILIES)
    with new_database(server.url, django_template_url) as url:
        supervisor = Supervisor(
            url,
            CHECKOUT,
            environ={"EXECUTOR_COMMAND": "", "PYTHONPATH": paths, FILE_VARIABLE: str(records)},
            arguments=("--django", "tests.django.upstream.worker_settings"),
            log_path=directory / "log",
            least_privilege=False,  # the tasks of the site use its tables
        )
        with supervisor, pytest.MonkeyPatch.context() as patch:
            patch.setenv(FILE_VARIABLE, str(records))
            yield url


@pytest.fixture
def django_database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One for all tests, so that the workers need not start anew; without rows, as each test expects."""
    runs_tasks = issubclass(request.cls.ours, LikeTheImmediate)
    url = request.getfixturevalue("database_with_workers" if runs_tasks else "database_without_workers")
    monkeypatch.setenv(
        "DJANGO_ALLOW_ASYNC_UNSAFE", "true"
    )  # two of them call it in the midst of an event loop
    with pointed_at(url):
        with connection.cursor() as cursor:
            cursor.execute("delete from task_runs")
        yield url


def test_each_skipped_test_is_one_of_djangos() -> None:
    names = {
        f"{upstream_class.__name__}.{name}"
        for _, upstream_class in upstream_classes()
        for name in dir(upstream_class)
    }
    assert SKIPS.keys() <= names
