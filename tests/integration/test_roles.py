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
from reproq_prefork.store.migrate import migrate
from reproq_prefork.store.migration_files import known_migrations
from tests.support.postgres.databases import LOGINS, PASSWORD, as_login
from tests.support.postgres.servers import embedded_server
from tests.support.supervisor.command_line import CommandLine
from tests.support.supervisor.supervisor import Connection, Supervisor, add_run, run_row

LOGIN = next(login for login, role in LOGINS.items() if role == "reproq_producer")


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
        "select * from reproq_waiters",
        "insert into reproq_waiters values (1, 'w', now())",
        "delete from reproq_waiters",
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
        "select reproq_await_run(1, 'w', 1)",
        "select reproq_stop_awaiting(1, 'w')",
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
def test_a_role_has_no_rights_beyond_its_work(database_url: str, connection: Connection, role: str) -> None:
    run_id = add_run(connection, {})
    before = run_row(connection, run_id)
    with connected(database_url, role) as login:
        for statement in (*FORBIDDEN[role], *NOBODY_MAY):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                login.execute(statement)
    assert run_row(connection, run_id) == before


@pytest.mark.parametrize("role", FORBIDDEN)
def test_no_role_gets_the_rights_of_the_owner_by_a_trigger_on_its_own_table(
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


TABLES = ("task_runs", "reproq_workers", "reproq_waiters", "reproq_specs", "reproq_schema_migrations")
# All but ACCESS SHARE, which each SELECT takes, keep some statement of a worker or a steward from being done.
LOCK_MODES = (
    "row share",
    "row exclusive",
    "share update exclusive",
    "share",
    "share row exclusive",
    "exclusive",
    "access exclusive",
)


@pytest.mark.parametrize("role", ["producer", "observer"])
def test_producers_and_observers_can_lock_no_table_and_no_row(
    database_url: str, connection: Connection, role: str
) -> None:
    add_run(connection, {})
    statements = [f"lock table {table} in {mode} mode" for table in TABLES for mode in LOCK_MODES]
    statements += [
        f"select from {table} for {strength}"
        for table in TABLES
        for strength in ("update", "no key update", "share", "key share")
    ]
    with connected(database_url, role) as login:
        for statement in statements:
            with pytest.raises(psycopg.errors.InsufficientPrivilege), login.transaction():
                login.execute(statement.encode())


class TestWaiters:
    """A producer calls a function to wait for the end of a run."""

    def waiters(self, connection: Connection) -> list[tuple[object, ...]]:
        return connection.execute(
            "select waiter, extract(epoch from expires_at - now())::float8 from reproq_waiters"
        ).fetchall()

    def awaits(
        self, login: Connection, run_id: int, waiter: str | None = "w", seconds: float | None = 60
    ) -> object:
        row = login.execute(
            "select reproq_await_run(%s::bigint, %s::text, %s::float8)", [run_id, waiter, seconds]
        ).fetchone()
        assert row is not None
        return row[0]

    def test_a_producer_can_start_and_stop_waiting(self, database_url: str, connection: Connection) -> None:
        run_id = add_run(connection, {})
        with connected(database_url, "producer") as producer:
            assert self.awaits(producer, run_id)
            assert [waiter for waiter, _ in self.waiters(connection)] == ["w"]
            producer.execute("select reproq_stop_awaiting(%s, 'another')", [run_id])
            producer.execute("select reproq_stop_awaiting(%s, 'w')", [run_id + 1])
            assert self.waiters(connection)
            producer.execute("select reproq_stop_awaiting(%s, 'w')", [run_id])
            assert not self.waiters(connection)

    @pytest.mark.parametrize(
        ("seconds", "kept"),
        [(60, 60), (1e300, 3600), ("NaN", 3600), ("Infinity", 3600), (None, 0), (-5, 0), ("-Infinity", 0)],
    )
    def test_a_wait_is_registered_for_an_hour_at_most(
        self, database_url: str, connection: Connection, seconds: float | None, kept: float
    ) -> None:
        run_id = add_run(connection, {})
        with connected(database_url, "producer") as producer:
            assert self.awaits(producer, run_id, seconds=seconds)
        ((_, left),) = self.waiters(connection)
        assert isinstance(left, float)
        assert left == pytest.approx(kept, abs=30)

    def test_a_second_request_extends_the_wait_and_adds_no_waiter(
        self, database_url: str, connection: Connection
    ) -> None:
        run_id = add_run(connection, {})
        with connected(database_url, "producer") as producer:
            assert self.awaits(producer, run_id, seconds=10)
            assert self.awaits(producer, run_id, seconds=1000)
        ((_, left),) = self.waiters(connection)
        assert isinstance(left, float)
        assert left > 500

    @pytest.mark.parametrize("waiter", [None, "", "w" * 65, "é" * 100_000])
    def test_an_invalid_waiter_name_is_refused(
        self, database_url: str, connection: Connection, waiter: str | None
    ) -> None:
        run_id = add_run(connection, {})
        with (
            connected(database_url, "producer") as producer,
            pytest.raises(psycopg.errors.InvalidParameterValue, match="1 to 64 characters"),
        ):
            self.awaits(producer, run_id, waiter)

    def test_a_finished_or_missing_run_cannot_be_waited_for(
        self, database_url: str, connection: Connection
    ) -> None:
        ended = add_run(connection, {}, status="SUCCESSFUL")
        with connected(database_url, "producer") as producer:
            for run_id in (ended, ended + 1, -(2**63), 2**63 - 1):
                assert self.awaits(producer, run_id) is False
        assert not self.waiters(connection)

    def test_a_run_has_a_hundred_waiters_at_most(self, database_url: str, connection: Connection) -> None:
        run_id, other = add_run(connection, {}), add_run(connection, {})
        with connected(database_url, "producer") as producer:
            answers = [self.awaits(producer, run_id, f"w{number}") for number in range(105)]
            assert answers == [True] * 100 + [False] * 5
            assert self.awaits(producer, other)


def test_every_function_that_other_roles_can_trigger_has_its_own_search_path(connection: Connection) -> None:
    """Without one, the caller of a function decides what its names mean."""
    without = connection.execute("""
        select proname
        from pg_proc
        where pronamespace = current_schema()::regnamespace
          and proname like 'reproq%'
          and (prosecdef or prorettype = 'trigger'::regtype)
          and not exists (
              select from unnest(proconfig) as setting (name)
              where name ~ '^search_path=(pg_catalog, )?("?[a-z_0-9]+"?, )?pg_temp$'
          )
    """).fetchall()
    assert without == []


def test_a_trigger_ignores_functions_in_a_schema_of_the_producer(
    database_url: str, connection: Connection
) -> None:
    connection.execute(f"create schema mine authorization {LOGIN}")
    with connected(database_url, "producer") as producer:
        producer.execute("""
            create function mine.octet_length(text) returns integer language sql return 64;
            create function mine.btrim(text, text) returns text language sql return '';
            create function mine.jsonb_typeof(jsonb) returns text language sql return 'string';
            create function mine.always(jsonb, jsonb) returns boolean language sql return true;
            create operator mine.= (function = mine.always, leftarg = jsonb, rightarg = jsonb);
            create function mine.other(jsonb, text) returns text language sql return 'mine';
            create operator mine.->> (function = mine.other, leftarg = jsonb, rightarg = text);
        """)
        producer.execute("set search_path = mine, pg_catalog, public")
        assert producer.execute("select octet_length('too long')").fetchone() == (64,)
        run_id = add_run(producer, {"v": 2, "task": "a.b"})
        other_id = add_run(producer, {"v": 1, "task": "a.b"})
        with pytest.raises(psycopg.errors.CheckViolation):
            producer.execute(
                "insert into task_runs (payload, spec_hash) "
                "values (to_jsonb(repeat('x', 1048576)), repeat('0', 64))"
            )
    assert run_row(connection, run_id)["task_path"] is None
    assert run_row(connection, other_id)["task_path"] == "a.b"


def test_an_observer_can_read_everything_and_change_nothing(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    observer = CommandLine(tmp_path, as_login(database_url, "observer"))
    run_id = add_run(connection, {"n": 1})
    assert "PENDING" in observer.output("show", str(run_id))
    assert "no workers" in observer.output("status")
    refused = observer.run("cancel", str(run_id), status=6)
    assert "permission denied for table task_runs" in refused.stderr
    assert run_row(connection, run_id)["status"] == "PENDING"


def test_an_owner_who_cannot_create_roles_can_migrate_and_sees_what_is_missing(
    tmp_path: Path,
) -> None:
    """As on a managed server. After an administrator has created the roles, the owner grants their rights."""
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
def test_a_login_without_the_rights_of_a_worker_is_refused_at_the_start(
    database_url: str, tmp_path: Path, role: str, rights: str
) -> None:
    supervisor = Supervisor(as_login(database_url, role), tmp_path, least_privilege=False)
    with supervisor.starting():
        assert supervisor.wait() == 6
        assert f"The database login reproq_test_{role} lacks the right of {rights}" in supervisor.log()


def test_a_reversed_migration_revokes_the_rights_and_keeps_the_roles(
    database_url: str, connection: Connection
) -> None:
    migrate(database_url, known_migrations(), to=5)
    with connected(database_url, "producer") as producer, pytest.raises(psycopg.errors.InsufficientPrivilege):
        producer.execute("select from task_runs")
    migrate(database_url, known_migrations())
    with connected(database_url, "producer") as producer:
        assert enqueue(producer, {}).created
