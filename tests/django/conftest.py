"""Django's own ways to test, and ours: its TestCase rolls back in the one database of the session, and everything
else has a new database a test, in which what is committed can be seen by real workers.
"""

from __future__ import annotations

import os
import unittest
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import django
import pytest

from tests.support.checkout import CHECKOUT

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.django.settings")
django.setup()

# Only now: models can be imported once the applications are set up.
from django.core.management import call_command  # noqa: E402
from django.db import transaction  # noqa: E402
from django.test import TestCase  # noqa: E402

from tests.support.django.browser import Browser, browser, need_browser  # noqa: E402
from tests.support.django.databases import pointed_at  # noqa: E402
from tests.support.postgres.databases import make_logins, new_database  # noqa: E402
from tests.support.postgres.servers import Server  # noqa: E402
from tests.support.supervisor.supervisor import Supervisor  # noqa: E402

Workers = Callable[..., Supervisor]


def pytest_report_header() -> str:
    return f"django: {django.get_version()}"


@pytest.fixture(scope="session")
def django_template_url(server: Server) -> Iterator[str]:
    """A database as `manage.py migrate` makes it. Nobody may stay connected to it: it is copied."""
    with new_database(server.url) as url:
        with pointed_at(url):
            call_command("migrate", verbosity=0)
        make_logins(url)
        yield url


@pytest.fixture(scope="session", autouse=True)
def django_session_database(server: Server, django_template_url: str) -> Iterator[str]:
    """Where a TestCase works: it is opened before any fixture of a test, and leaves nothing."""
    with new_database(server.url, django_template_url) as url, pointed_at(url):
        yield url


@pytest.fixture
def django_database(server: Server, django_template_url: str) -> Iterator[str]:
    """The URL of this test's own database, migrated and without rows; Django's default connection is to it."""
    with new_database(server.url, django_template_url) as url, pointed_at(url):
        yield url


@pytest.fixture
def django_transaction(django_session_database: str) -> Iterator[None]:
    """Where a TestCase works too, for what commits nothing and needs no database of its own; it is taken back."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.fixture(autouse=True)
def _a_database_for_each_test_that_commits(request: pytest.FixtureRequest) -> None:
    in_transactions = isinstance(request.instance, TestCase)
    if isinstance(request.instance, unittest.TestCase) and not in_transactions:
        request.getfixturevalue("django_database")


@pytest.fixture(scope="session")
def browser_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """To start one takes seconds."""
    need_browser()
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def fresh_browser(browser_of_the_session: Browser) -> Browser:
    """A browser that knows no cookies yet."""
    browser_of_the_session.forget()
    return browser_of_the_session


@pytest.fixture
def django_workers(django_database: str, tmp_path: Path) -> Workers:
    """Makes a supervisor whose workers run the tasks of the tests' site: `with django_workers(workers=1) as …`."""

    def workers(
        *arguments: str,
        workers: int = 2,
        environ: Mapping[str, str] | None = None,
        log_name: str = "workers.log",
    ) -> Supervisor:
        return Supervisor(
            django_database,
            CHECKOUT,
            workers=workers,
            environ={"EXECUTOR_COMMAND": "", **(environ or {})},
            arguments=("--django", "tests.django.settings", *arguments),
            log_path=tmp_path / log_name,
            least_privilege=False,  # the tasks of the site use its tables
        )

    return workers
