"""Enqueue by SQL alone: without a hash, and by `reproq_enqueue`."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from reproq_prefork import NewRun, Spec, enqueue, enqueue_many, get_run
from reproq_prefork.store import bulk
from reproq_prefork.store.migrate import migrate
from reproq_prefork.store.migration_files import known_migrations
from tests.support.postgres.databases import LOGINS, as_login
from tests.support.waiting import wait_until

Connection = psycopg.Connection[Any]
CALL = {"v": 1, "task": "shop.tasks.send", "args": [1e23, 7.0], "kwargs": {"é": None}}
ENQUEUE = "select * from reproq_enqueue(%s, unique_key => %s)"


def one(connection: Connection, statement: str, *parameters: object) -> Any:
    row = connection.execute(statement.encode(), parameters).fetchone()
    assert row is not None
    return row


# --- a plain INSERT ---


@pytest.mark.parametrize("payload", [CALL, {"name": "Ada"}, 1, None, "text", []])
def test_a_payload_alone_is_a_run_with_its_hash(connection: Connection, payload: object) -> None:
    (run_id,) = one(connection, "insert into task_runs (payload) values (%s) returning id", Jsonb(payload))
    run = get_run(connection, run_id)
    assert run.spec_hash == Spec.of(payload).hash
    assert run.task_path == (payload["task"] if payload is CALL else None)
    other = enqueue(connection, payload)
    assert (other.spec_hash, other.task_path) == (run.spec_hash, run.task_path)


def test_a_hash_that_is_given_is_kept_and_computed_by_nobody(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What our own statements insert costs no more than before."""
    connection.execute(
        "create or replace function reproq_hash_spec() returns trigger language plpgsql as "
        "'begin raise exception ''computed''; end'"
    )
    enqueue(connection, CALL)
    enqueue_many(connection, [NewRun.of(1), NewRun.of(2)])
    monkeypatch.setattr(bulk, "COPY_FROM", 1)
    enqueue_many(connection, [NewRun.of(3), NewRun.of(4)])
    connection.execute("insert into task_runs (payload, spec_hash) values ('{}', repeat('a', 64))")
    with pytest.raises(psycopg.errors.RaiseException, match="computed"):
        connection.execute("insert into task_runs (payload) values ('{}')")
    with pytest.raises(psycopg.errors.RaiseException, match="computed"):
        connection.execute("insert into task_runs (payload, spec_hash) values ('{}', null)")


def test_many_rows_and_a_copy_get_their_hashes(connection: Connection) -> None:
    connection.execute("insert into task_runs (payload) select to_jsonb(n) from generate_series(1, 3) as n")
    with connection.cursor().copy("copy task_runs (payload) from stdin") as copy:
        copy.write_row((Jsonb({"name": "Ada"}),))
    hashes = [row[0] for row in connection.execute("select spec_hash from task_runs order by id")]
    assert hashes == [Spec.of(payload).hash for payload in (1, 2, 3, {"name": "Ada"})]
    found = connection.execute("select spec_key, run_id from reproq_specs order by run_id").fetchall()
    assert len(found) == 4, "and they are found by their hashes"


@pytest.mark.parametrize(
    ("statement", "error", "sentence"),
    [
        ("insert into task_runs (payload) values (null)", psycopg.errors.NotNullViolation, '"payload"'),
        (
            "insert into task_runs (payload) values (to_jsonb(repeat('x', 1048576)))",
            psycopg.errors.CheckViolation,
            "task_runs.payload is 1048578 bytes as text, the limit is 1048576",
        ),
        (  # before it is hashed, which would meet its numbers
            "insert into task_runs (payload) select jsonb_agg(1e131071::numeric) from generate_series(1, 9)",
            psycopg.errors.CheckViolation,
            "task_runs.payload is 1179666 bytes as text",
        ),
        (
            "insert into task_runs (payload) values ('[1e400]')",
            psycopg.errors.CheckViolation,
            "a number of the payload has more than 400 digits",
        ),
        (
            "insert into task_runs (payload) values ((repeat('[', 101) || repeat(']', 101))::jsonb)",
            psycopg.errors.CheckViolation,
            "more than 100 arrays and objects",
        ),
        (
            "insert into task_runs (payload, spec_hash) values ('{}', '')",
            psycopg.errors.CheckViolation,
            "must be 64 lower-case hexadecimal digits",
        ),
    ],
)
def test_a_payload_without_a_hash_is_refused_with_a_reason(
    connection: Connection, statement: str, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        connection.execute(statement.encode())


@pytest.mark.parametrize("name", ["", " mail", "a,b", "a\nb", "x" * 129])
def test_a_queue_name_that_no_worker_could_serve_is_refused(connection: Connection, name: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match=r"task_runs\.queue_name must have 1 to 128"):
        one(connection, "insert into task_runs (payload, queue_name) values ('1', %s) returning id", name)
    with pytest.raises(psycopg.errors.CheckViolation, match=r"task_runs\.queue_name must have 1 to 128"):
        one(connection, "select * from reproq_enqueue('1', %s)", name)
    enqueue(connection, 1)
    with pytest.raises(psycopg.errors.CheckViolation, match=r"task_runs\.queue_name must have 1 to 128"):
        connection.execute("update task_runs set queue_name = %s", (name,))
    connection.execute("update task_runs set queue_name = 'mail'")


def test_a_run_with_such_a_name_from_before_can_still_change(empty_database_url: str) -> None:
    known = known_migrations()
    migrate(empty_database_url, known, to=10)
    with psycopg.connect(empty_database_url, autocommit=True) as old:
        old.execute("insert into task_runs (payload, spec_hash) values ('1', repeat('a', 64))")
        old.execute("update task_runs set queue_name = ''")
        migrate(empty_database_url, known)
        old.execute("update task_runs set status = 'CANCELLED', queue_name = ''")
        assert one(old, "select status, queue_name from task_runs") == ("CANCELLED", "")


# --- reproq_enqueue ---


def test_a_call_with_a_payload_has_the_defaults_of_enqueue(connection: Connection) -> None:
    run_id, spec_hash, created = one(connection, 'select * from reproq_enqueue(\'{"name": "Ada"}\')')
    assert created
    assert spec_hash == Spec.of({"name": "Ada"}).hash
    by_python = enqueue(connection, {"name": "Ada"})
    run = get_run(connection, run_id)
    for name in (
        "queue_name",
        "priority",
        "run_after",
        "max_attempts",
        "timeout_seconds",
        "unique_key",
        "executor",
    ):
        assert getattr(run, name) == getattr(by_python, name)


def test_a_call_has_the_options_that_it_names(connection: Connection) -> None:
    """Also as literals, whose types are not those of the columns."""
    run_id, _, _ = one(
        connection,
        "select * from reproq_enqueue('1', 'mail', -7, now() + interval '1 hour', 5, 2.5, 'k')",
    )
    run = get_run(connection, run_id)
    assert (run.queue_name, run.priority, run.max_attempts, run.timeout_seconds) == ("mail", -7, 5, 2.5)
    assert run.unique_key == "k"
    assert run.run_after == run.enqueued_at + timedelta(hours=1)
    run_id, _, _ = one(
        connection,
        "select * from reproq_enqueue(to_jsonb('é'::text), run_after => %s, priority => 3::smallint)",
        datetime(2031, 5, 17, tzinfo=UTC),
    )
    run = get_run(connection, run_id)
    assert (run.payload, run.priority, run.run_after) == ("é", 3, datetime(2031, 5, 17, tzinfo=UTC))


@pytest.mark.parametrize(
    "call",
    [
        "reproq_enqueue('1', priority => 101)",
        "reproq_enqueue('1', max_attempts => 0)",
        "reproq_enqueue('1', timeout_seconds => 1e30)",
        "reproq_enqueue('1', unique_key => '')",
        "reproq_enqueue('1', run_after => 'infinity')",
        "reproq_enqueue('1', queue_name => null)",
        "reproq_enqueue(null)",
    ],
)
def test_what_the_table_refuses_is_refused(connection: Connection, call: str) -> None:
    with pytest.raises((psycopg.IntegrityError, psycopg.DataError)):
        connection.execute(f"select * from {call}".encode())  # noqa: S608


def test_a_key_that_is_held_gives_its_holder(connection: Connection) -> None:
    first = one(connection, ENQUEUE, Jsonb(1), "k")
    assert one(connection, ENQUEUE, Jsonb(2), "k") == (first[0], Spec.of(1).hash, False)
    assert enqueue(connection, 2, unique_key="k").id == first[0]
    connection.execute("update task_runs set status = 'CANCELLED'")
    again = one(connection, ENQUEUE, Jsonb(2), "k")
    assert again[0] != first[0]
    assert again[1:] == (Spec.of(2).hash, True)


def test_a_call_waits_for_another_one_with_its_key(database_url: str, connection: Connection) -> None:
    """And adds the run if the other one rolls back."""
    answers: list[Any] = []

    def call() -> None:
        with psycopg.connect(database_url, autocommit=True) as own:
            answers.append(one(own, ENQUEUE, Jsonb(2), "k"))

    for roll_back in (True, False):
        with psycopg.connect(database_url) as other:
            taken = one(other, ENQUEUE, Jsonb(1), "k" if roll_back else "other")
            if not roll_back:
                other.execute("update task_runs set status = 'CANCELLED' where unique_key = 'k'")
            thread = threading.Thread(target=call)
            thread.start()
            wait_until(
                lambda: (
                    one(
                        connection,
                        "select count(*) from pg_stat_activity "
                        "where datname = current_database() and wait_event_type = 'Lock'",
                    )
                    == (1,)
                ),
                10,
                "the call to wait",
            )
            other.rollback() if roll_back else other.commit()
            thread.join()
        assert answers[-1][2] is True
        assert taken[2] is True
    assert len({answer[0] for answer in answers}) == 2


def test_a_run_is_in_the_transaction_of_the_caller(database_url: str, connection: Connection) -> None:
    with psycopg.connect(database_url) as own:
        one(own, "select * from reproq_enqueue('1')")
        assert one(connection, "select count(*) from task_runs") == (0,)
        own.rollback()
        one(own, "select * from reproq_enqueue('2')")
        own.commit()
    assert one(connection, "select payload from task_runs") == (2,)


# --- roles, and what is in the caller's search path ---


def test_a_producer_may_and_an_observer_may_not(database_url: str, connection: Connection) -> None:
    with psycopg.connect(as_login(database_url, "producer"), autocommit=True) as producer:
        producer.execute("insert into task_runs (payload) values ('1')")
        first = one(producer, ENQUEUE, Jsonb(2), "k")
        assert one(producer, ENQUEUE, Jsonb(3), "k") == (*first[:2], False)
    with psycopg.connect(as_login(database_url, "observer"), autocommit=True) as observer:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            one(observer, "select * from reproq_enqueue('1')")
        assert one(observer, "select reproq_spec_hash('2')") == (first[1],)


def test_a_schema_of_the_producer_changes_nothing(database_url: str, connection: Connection) -> None:
    (login,) = (each for each in LOGINS if "producer" in each)
    connection.execute(f"create schema mine authorization {login}".encode())
    with psycopg.connect(as_login(database_url, "producer"), autocommit=True) as producer:
        producer.execute("""
            create function mine.sha256(bytea) returns bytea language sql return ''::bytea;
            create function mine.jsonb_typeof(jsonb) returns text language sql return 'null';
            create function mine.octet_length(text) returns integer language sql return 1;
            create function mine.reproq_spec_hash(jsonb) returns text language sql return repeat('0', 64);
            create table mine.task_runs ();
            set search_path = mine, pg_catalog, public;
        """)
        producer.execute("insert into public.task_runs (payload) values ('1')")
        one(producer, "select * from reproq_enqueue('1')")
        with pytest.raises(psycopg.errors.CheckViolation, match="the limit is 1048576"):
            producer.execute("insert into public.task_runs (payload) values (to_jsonb(repeat('x', 1048576)))")
    hashes = connection.execute("select spec_hash from task_runs").fetchall()
    assert hashes == [(Spec.of(1).hash,)] * 2
