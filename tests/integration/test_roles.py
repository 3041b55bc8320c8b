"""What each of the roles of the schema may do, by logins that have no other rights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString
from urllib.parse import urlsplit

import psycopg
import pytest

from reproq_prefork import NewRun, Status, enqueue, enqueue_many, get_run, requeue
from reproq_prefork.migrate import migrate
from reproq_prefork.migration_files import known_migrations
from tests.databases import PASSWORD, as_login
from tests.integration.command_line import CommandLine
from tests.servers import embedded_server
from tests.supervisor import Connection, Supervisor, add_run, run_row


@contextmanager
def connected(url: str, role: str) -> Iterator[Connection]:
    with psycopg.connect(as_login(url, role), autocommit=True) as connection:
        yield connection


def test_a_producer_enqueues_one_and_many_replays_and_reads_results(database_url: str) -> None:
    with connected(database_url, "producer") as producer:
        run = enqueue(producer, {"n": 1}, unique_key="one")
        assert not enqueue(producer, {"n": 1}, unique_key="one").created
        runs = enqueue_many(
            producer, [NewRun.of({"n": n}) for n in range(600)]
        )  # more than a COPY is made for
        assert [run.id for run in runs] == sorted({run.id for run in runs})
        assert get_run(producer, runs[-1].id).status is Status.PENDING
        assert requeue(producer, run_id=runs[0].id).replay_of == runs[0].id
        assert requeue(producer, spec_hash=run_row(producer, runs[1].id)["spec_hash"]).replay_of == runs[1].id
        assert run_row(producer, add_run(producer, {"by": "plain SQL"}))["status"] == "PENDING"
    assert run.created


# What a login without the right gets is an error that says which right it lacks.
FORBIDDEN: dict[str, tuple[LiteralString, ...]] = {
    "producer": (
        "update task_runs set priority = 100",
        "update task_runs set status = 'SUCCESSFUL'",
        "delete from task_runs",
        "truncate task_runs",
        "insert into task_runs (payload, spec_hash, status) values ('{}', repeat('0', 64), 'SUCCESSFUL')",
        "insert into task_runs (id, payload, spec_hash) values (1000, '{}', repeat('0', 64))",
        "insert into task_runs (payload, spec_hash, result) values ('{}', repeat('0', 64), '1')",
        "select * from reproq_workers",
        "insert into reproq_specs values (1, 1)",
        "select reproq_adopt()",
        "delete from reproq_database",
    ),
    "worker": (
        "insert into task_runs (payload, spec_hash) values ('{}', repeat('0', 64))",
        "update task_runs set payload = '{}'",
        "update task_runs set spec_hash = repeat('1', 64)",
        "update task_runs set max_attempts = 9",
        "update task_runs set priority = 100",
        "delete from task_runs",
        "insert into reproq_specs values (1, 1)",
    ),
    "observer": (
        "insert into task_runs (payload, spec_hash) values ('{}', repeat('0', 64))",
        "update task_runs set priority = 100",
        "update reproq_workers set lease_expires_at = now()",
        "delete from reproq_workers",
        "delete from reproq_waiters",
        "select reproq_adopt()",
    ),
}
NOBODY_MAY: tuple[LiteralString, ...] = (
    "create table more (n integer)",
    "alter table task_runs add column more integer",
    "drop trigger task_runs_refuse_changed_spec on task_runs",
    "insert into reproq_schema_migrations (version, name) values (99, 'more')",
    "insert into reproq_database (database_oid, table_oid, database_name) values (1, 1, 'another')",
    "select reproq_grant_roles()",
)


@pytest.mark.parametrize("role", FORBIDDEN)
def test_a_role_may_do_nothing_beyond_its_work(database_url: str, connection: Connection, role: str) -> None:
    run_id = add_run(connection, {})
    before = run_row(connection, run_id)
    with connected(database_url, role) as login:
        for statement in (*FORBIDDEN[role], *NOBODY_MAY):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                login.execute(statement)
    assert run_row(connection, run_id) == before


@pytest.mark.parametrize("role", FORBIDDEN)
def test_nobody_acts_by_the_rights_of_the_owner_with_a_trigger_on_a_table_of_their_own(
    database_url: str, connection: Connection, role: str
) -> None:
    definers = connection.execute("""
        select proname, format('create trigger mine after insert on mine execute function %s()', oid::regproc)
        from pg_proc
        where prosecdef and prorettype = 'trigger'::regtype and pronamespace = current_schema()::regnamespace
    """).fetchall()
    assert len(definers) >= 3  # those that keep reproq_specs
    with connected(database_url, role) as login:
        login.execute("create temporary table mine (n integer)")
        for name, statement in definers:
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match=f"denied for function {name}"):
                login.execute(statement.encode())


def test_an_observer_sees_all_and_ends_nothing(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    observer = CommandLine(tmp_path, as_login(database_url, "observer"))
    run_id = add_run(connection, {"n": 1})
    assert "PENDING" in observer.output("show", str(run_id))
    assert "no workers" in observer.output("status")
    refused = observer.run("cancel", str(run_id), status=6)
    assert "permission denied for table task_runs" in refused.stderr
    assert run_row(connection, run_id)["status"] == "PENDING"


def test_an_owner_who_may_make_no_roles_migrates_all_the_same_and_is_told_what_is_missing(
    tmp_path: Path,
) -> None:
    """As on a managed server. Once an administrator has made the roles, the owner gives them their rights."""
    with embedded_server() as server, psycopg.connect(server.url, autocommit=True) as administrator:
        administrator.execute(f"create role owner login password '{PASSWORD}'")
        administrator.execute("create database app owner owner")
        url = urlsplit(server.url)
        place = url.netloc.rpartition("@")[2]
        url = url._replace(netloc=f"owner:{PASSWORD}@{place}", path="/app")
        done = CommandLine(tmp_path, url.geturl()).run("migrate", status=0)
        assert "applied 0006_roles" in done.stdout
        for role in ("reproq_producer", "reproq_worker", "reproq_observer"):
            assert (
                f"note: the role {role} is missing, and owner may make no roles. Have it made" in done.stderr
            )
        for role in ("reproq_producer", "reproq_worker", "reproq_observer"):
            administrator.execute(f"create role {role}")
        administrator.execute(
            f"create role reproq_test_producer login password '{PASSWORD}' in role reproq_producer"
        )
        with connected(url.geturl(), "producer") as producer:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                enqueue(producer, {})
            with psycopg.connect(url.geturl()) as owner:
                owner.execute("select reproq_grant_roles()")
            assert enqueue(producer, {}).created


@pytest.mark.parametrize(
    ("role", "rights"),
    [
        ("observer", "UPDATE on task_runs, INSERT on reproq_workers, UPDATE on reproq_workers, DELETE on"),
        ("producer", "UPDATE on task_runs, INSERT on reproq_workers"),
    ],
)
def test_a_login_that_may_not_work_is_refused_at_the_start(
    database_url: str, tmp_path: Path, role: str, rights: str
) -> None:
    supervisor = Supervisor(as_login(database_url, role), tmp_path, least_privilege=False)
    with supervisor.starting():
        assert supervisor.wait() == 6
        assert f"The database login reproq_test_{role} lacks the right of {rights}" in supervisor.log()


def test_rights_are_taken_back_and_the_roles_stay(database_url: str, connection: Connection) -> None:
    migrate(database_url, known_migrations(), to=5)
    with connected(database_url, "producer") as producer, pytest.raises(psycopg.errors.InsufficientPrivilege):
        producer.execute("select from task_runs")
    migrate(database_url, known_migrations())
    with connected(database_url, "producer") as producer:
        assert enqueue(producer, {}).created
