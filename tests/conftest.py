"""One server a session, one new database a test; the unit tests have neither."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reproq_prefork.demo.postgres import EmbeddedPostgres
from tests.support.examples import register_profiles
from tests.support.postgres.databases import apply_migrations, new_database
from tests.support.postgres.servers import Server, embedded_server, running_server
from tests.support.supervisor.warm import warm_server
from tests.support.unix.memory import temporary_files_in_memory

UNIT_TESTS = Path(__file__).parent / "unit"
SKIP_NO_FAULT = "REPROQ_TEST_SKIP_NO_FAULT"
FAULT_TESTS = Path(__file__).parent / "faults"

register_profiles()

_server_key = pytest.StashKey[Server]()
_stack_key = pytest.StashKey[contextlib.ExitStack]()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the server before anything is reported, so that the first line can say which one it is."""
    config = session.config
    # A shell has what it puts in the background ignore SIGINT, and all that the tests start would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.collectonly:
        return
    if hasattr(config, "workerinput"):
        _take_server_of_the_run(config)
        return
    stack = config.stash[_stack_key] = contextlib.ExitStack()
    stack.enter_context(temporary_files_in_memory())
    if _only_unit_tests(config):
        line = "database: none, for only unit tests were asked for"
    else:
        config.stash[_server_key] = stack.enter_context(running_server())
        stack.enter_context(warm_server())
        line = f"database: {config.stash[_server_key]}"
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(line)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process that runs a part of the tests (pytest-xdist) of the one server that all share."""
    server = node.config.stash.get(_server_key, None)
    node.workerinput["server"] = server and dataclasses.asdict(server)


def _take_server_of_the_run(config: Any) -> None:
    server = config.workerinput["server"]
    if server is not None:
        config.stash[_server_key] = Server(**server)


def pytest_unconfigure(config: pytest.Config) -> None:
    if _stack_key in config.stash:
        config.stash[_stack_key].close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if FAULT_TESTS in item.path.parents:
            item.add_marker("fault")
        if UNIT_TESTS in item.path.parents and "server" in getattr(item, "fixturenames", ()):
            raise pytest.UsageError(f"{item.nodeid} is a unit test, so it must not use a database")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Where nothing may be left out, a fault that is skipped is one that nobody has tried: that is a failure."""
    report = yield
    if report.skipped and item.get_closest_marker("fault") and os.environ.get(SKIP_NO_FAULT):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and {SKIP_NO_FAULT} is set: {report.longrepr}"
    return report


def pytest_collection_finish() -> None:
    """Thousands of tests are no garbage: without this, each process forked from here looks through them all."""
    gc.collect()
    gc.freeze()


def _only_unit_tests(config: pytest.Config) -> bool:
    paths = [(config.invocation_params.dir / argument.split("::")[0]).resolve() for argument in config.args]
    return all(path == UNIT_TESTS or UNIT_TESTS in path.parents for path in paths)


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config) -> Server:
    """The server that the first line of the report names."""
    return pytestconfig.stash[_server_key]


@pytest.fixture(scope="session")
def template_url(server: Server) -> Iterator[str]:
    """A database with all migrations applied. Nobody may stay connected to it: it is copied."""
    with new_database(server.url) as url:
        apply_migrations(url)
        yield url


@pytest.fixture
def database_url(server: Server, template_url: str) -> Iterator[str]:
    """The URL of this test's own database, with the schema and no rows."""
    with new_database(server.url, template_url) as url:
        yield url


@pytest.fixture
def empty_database_url(server: Server) -> Iterator[str]:
    """The URL of this test's own database, without a schema."""
    with new_database(server.url) as url:
        yield url


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection to `database_url`; each statement commits by itself."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def private_server() -> Iterator[EmbeddedPostgres]:
    """An embedded server of this test's own, with the schema at its `url`, to be stopped and crashed."""
    with embedded_server() as server:
        apply_migrations(server.url)
        yield server
