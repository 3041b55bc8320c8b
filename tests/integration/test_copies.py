"""A database knows that it is a copy of another one, and no worker works there until somebody has adopted it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reproq_prefork import Status, enqueue, get_run
from reproq_prefork.errors import DatabaseIsCopy, DatabaseUnavailable, ExitStatus
from reproq_prefork.store.connection import connect, end_backend_of
from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.outcomes import ConnectionLost, StatementRefused
from reproq_prefork.store.statements import statement
from tests.support.postgres.databases import as_login, new_database
from tests.support.postgres.servers import Server
from tests.support.rows.restores import give_a_past, marks_of, statuses_of
from tests.support.rows.stores import steward_store, worker_store
from tests.support.supervisor.command_line import CommandLine
from tests.support.supervisor.supervisor import Connection, Supervisor

EXECUTOR = {"EXECUTOR_COMMAND": "true"}


@pytest.fixture
def copy_url(server: Server, database_url: str) -> Iterator[str]:
    """A copy of `database_url`, which has workers, made within the server."""
    give_a_past(database_url)
    with new_database(server.url, database_url) as url:
        yield url


@pytest.fixture
def cli(tmp_path: Path, copy_url: str) -> CommandLine:
    return CommandLine(tmp_path, copy_url)


def notes_of(url: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(
            "select database_name, worked_at is not null from reproq_database"
        ).fetchall()


# --- what is a copy ---


def test_a_database_that_never_had_workers_may_be_copied_within_its_server(
    server: Server, database_url: str
) -> None:
    """A test suite copies its template, and Django's parallel tests copy their databases."""
    with psycopg.connect(database_url) as connection:
        enqueue(connection, 1)
    with new_database(server.url, database_url) as url:
        assert marks_of(url)[0] == 0
        worker_store(url).close()
        assert notes_of(url) == [(url.rpartition("/")[2], True)]


def test_a_copy_of_a_database_that_had_a_worker_is_recognised(server: Server, copy_url: str) -> None:
    assert marks_of(copy_url)[0] == 1
    with new_database(server.url, copy_url) as copy_of_a_copy:
        assert marks_of(copy_of_a_copy)[0] == 1


def test_tasks_run_inside_a_test_leave_its_database_free_to_be_copied(
    server: Server, database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into reproq_workers (id, host, host_identity, pid, pid_started, master_pid, master_started,"
            " version, queues, lease_expires_at)"
            " values ('w', 'in-process', 'in-process', 1, 1, 1, 1, '0', '{}', now())"
        )
    with new_database(server.url, database_url) as url:
        assert marks_of(url)[0] == 0


def test_workers_that_register_at_the_same_time_write_one_row_for_the_database(database_url: str) -> None:
    start, failures = threading.Barrier(8), list[BaseException]()

    def register(number: int) -> None:
        try:
            start.wait(10)
            worker_store(database_url, f"w{number}").close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures
    assert notes_of(database_url) == [(database_url.rpartition("/")[2], True)]


# --- what is refused in one ---


def test_a_start_and_a_check_report_a_copy_at_once(cli: CommandLine, copy_url: str, tmp_path: Path) -> None:
    said = cli.run("check", environ=EXECUTOR, status=ExitStatus.DATABASE_IS_COPY).stdout
    assert "schema    ok" in said
    name = copy_url.rpartition("/")[2]
    assert f"database  The database {name} at " in said
    assert "is a copy: its runs came from the database reproq_test_" in said
    assert "`reproq-prefork adopt --keep-unfinished`" in said
    assert "`reproq-prefork adopt --cancel-unfinished`" in said
    supervisor = Supervisor(copy_url, tmp_path)  # which would wait for a minute for a server that is away
    with supervisor.starting():
        assert supervisor.wait(15) == ExitStatus.DATABASE_IS_COPY
        assert supervisor.log().count("is a copy: its runs came from the database") == 1


def test_status_reports_a_copy(cli: CommandLine, database_url: str) -> None:
    assert "is a copy: its runs came from" in cli.output("status").splitlines()[0]
    original = database_url.rpartition("/")[2]
    assert f'"copy_of": "the database {original} (oid ' in cli.output("status", "--json")


def test_producers_can_enqueue_in_a_copy(copy_url: str) -> None:
    with psycopg.connect(as_login(copy_url, "producer")) as producer:
        assert enqueue(producer, 1).created


def test_no_worker_can_register_in_a_copy_not_even_of_an_older_release(copy_url: str) -> None:
    with closing(connect(copy_url, application_name="a worker")) as connection:
        parameters = {
            "worker_id": "w2", "host": "h", "host_identity": "b:1", "pid": 1, "pid_started": 1, "master_pid": 1,
            "master_started": 1, "version": "0", "queues": "default", "lease_seconds": 60.0, "pooled": False,
        }  # fmt: skip
        with pytest.raises(StatementRefused, match="this database is a copy of the database reproq_test_"):
            fetch(connection, statement("register_worker"), parameters)


def test_neither_worker_nor_steward_stays_connected_to_a_copy(copy_url: str) -> None:
    with pytest.raises(DatabaseIsCopy):
        worker_store(copy_url)
    with pytest.raises(DatabaseIsCopy):
        steward_store(copy_url)


def test_if_the_check_for_a_copy_fails_the_database_counts_as_unavailable(
    database_url: str, connection: Connection
) -> None:
    connection.execute("drop function reproq_foreign_notes() cascade")
    with pytest.raises(DatabaseUnavailable, match="reproq_foreign_notes"):
        worker_store(database_url)
    with pytest.raises(DatabaseUnavailable, match="reproq_foreign_notes"):
        steward_store(database_url)


def test_a_row_that_names_another_database_deletes_the_registrations_of_workers(
    database_url: str, connection: Connection
) -> None:
    with closing(worker_store(database_url)) as worker:
        enqueue(connection, 1)
        connection.execute(
            "insert into reproq_database (database_oid, table_oid, database_name) values (1, 1, 'a')"
        )
        assert marks_of(database_url)[:2] == (1, 0)
        claim = worker.finish_and_claim([], max_runs=1)
    assert (claim.holds_lease, claim.runs) == (False, ())


def test_a_steward_deletes_registrations_that_no_trigger_deleted(
    database_url: str, connection: Connection
) -> None:
    with closing(worker_store(database_url)), closing(steward_store(database_url)) as steward:
        steward.leave_copy()
        with connection.transaction():
            connection.execute("set local session_replication_role = replica")
            connection.execute(
                "insert into reproq_database (database_oid, table_oid, database_name) values (1, 1, 'another')"
            )
        assert marks_of(database_url)[:2] == (1, 1)
        with pytest.raises(ConnectionLost, match="a copy of another one"):
            steward.leave_copy()
    assert marks_of(database_url)[:2] == (1, 0)


def test_the_server_process_of_an_original_worker_is_not_ended_from_a_copy(
    server: Server, database_url: str, connection: Connection
) -> None:
    """Both databases are on one server, so pg_stat_activity shows the same pids in the copy."""
    with closing(worker_store(database_url)) as worker, new_database(server.url, None) as url:
        row = connection.execute("select backend_pid, backend_started from reproq_workers").fetchone()
        with closing(connect(url, application_name="a copy")) as copy:
            copy.execute(
                "create table public.reproq_workers (id text, backend_pid int, backend_started timestamptz)"
            )
            copy.execute("insert into reproq_workers values ('w', %s, %s)", row)
            assert end_backend_of(copy, "w")
        assert worker.finish_and_claim([], max_runs=1).holds_lease


# --- adopting it ---


def test_adopt_requires_a_decision_about_the_unfinished_runs(cli: CommandLine, copy_url: str) -> None:
    said = cli.run("adopt", status=ExitStatus.USAGE).stderr
    assert "35 runs of the database reproq_test_" in said
    assert "--keep-unfinished" in said
    assert "--cancel-unfinished" in said
    cli.run("adopt", "--keep-unfinished", "--cancel-unfinished", status=ExitStatus.USAGE)
    assert marks_of(copy_url) == (1, 1, 1)


def test_adopt_can_keep_the_runs(cli: CommandLine, copy_url: str, database_url: str) -> None:
    assert cli.output("adopt", "--keep-unfinished") == "adopted: masters may start here\n"
    assert marks_of(copy_url) == (0, 0, 0)
    assert statuses_of(copy_url) == statuses_of(database_url)
    worker_store(copy_url).close()
    assert cli.output("adopt", "--keep-unfinished") == "nothing to do: this database is not a copy\n"


def test_after_adopt_no_id_is_used_twice(cli: CommandLine, copy_url: str) -> None:
    with psycopg.connect(copy_url, autocommit=True) as connection:
        newest = enqueue(connection, 1).id
        connection.execute("delete from task_runs where id = %s", [newest])
        cli.output("adopt", "--keep-unfinished")
        assert enqueue(connection, 1).id > newest


def test_adopt_can_cancel_the_runs_without_announcing_their_ends(
    cli: CommandLine, copy_url: str, database_url: str
) -> None:
    with psycopg.connect(copy_url, autocommit=True) as connection:
        payload = {"v": 1, "task": "shop.tasks.send", "args": [], "kwargs": {}}
        run = enqueue(connection, payload)
        connection.execute("update task_runs set finish_due_at = now() where status = 'SUCCESSFUL'")
        assert cli.output("adopt", "--cancel-unfinished") == (
            "cancelled 36 runs\nadopted: masters may start here\n"
        )
        assert get_run(connection, run.id).errors[0]["message"] == (
            "this copy of the run's database was adopted without it"
        )
        assert connection.execute(
            "select count(*) from task_runs where finish_due_at is not null"
        ).fetchone() == (0,)
    assert statuses_of(copy_url) == {"SUCCESSFUL": 30, "CANCELLED": 36}
    assert statuses_of(database_url)["PENDING"] == 30


def test_a_worker_may_adopt_and_a_producer_may_not(copy_url: str, tmp_path: Path) -> None:
    producer = CommandLine(tmp_path, as_login(copy_url, "producer"))
    said = producer.run("adopt", "--keep-unfinished", status=ExitStatus.DATABASE_UNAVAILABLE).stderr
    assert "may not register workers, and so may not adopt this database" in said
    worker = CommandLine(tmp_path, as_login(copy_url, "worker"))
    worker.output("adopt", "--cancel-unfinished")
    assert marks_of(copy_url) == (0, 0, 0)


def test_a_copy_with_a_locked_run_is_not_adopted(cli: CommandLine, copy_url: str) -> None:
    with psycopg.connect(copy_url) as holder:
        holder.execute("select from task_runs where status = 'PENDING' limit 1 for update")
        said = cli.run("adopt", "--cancel-unfinished", status=ExitStatus.FAILURE)
        assert "1 run could not be cancelled, since others hold them locked" in said.stderr
        assert marks_of(copy_url)[0] == 1
    cli.output("adopt", "--cancel-unfinished")
    assert statuses_of(copy_url).keys() == {"SUCCESSFUL", "CANCELLED"}


def test_adopt_asks_first_if_the_database_does_not_look_like_a_copy(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    cli = CommandLine(tmp_path, database_url)
    run = enqueue(connection, 1)
    said = cli.run("adopt", "--cancel-unfinished", status=ExitStatus.USAGE).stderr
    assert "This database does not look like a copy. Cancel 1 unfinished run?" in said
    with closing(worker_store(database_url)):
        said = cli.run("adopt", "--cancel-unfinished", "--yes", status=ExitStatus.FAILURE).stderr
        assert "has 1 live worker, so no run was cancelled" in said
    assert get_run(connection, run.id).status is Status.PENDING
    connection.execute("update reproq_workers set lease_expires_at = now()")
    cli.output("adopt", "--cancel-unfinished", "--yes")
    assert get_run(connection, run.id).status is Status.CANCELLED
