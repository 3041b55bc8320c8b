"""The limits of a run are those of the API for whoever writes the table, and hold for what was there before."""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reproq_prefork import NewRun, enqueue
from reproq_prefork.model.limits import (
    MAX_ATTEMPTS,
    MAX_PRIORITY,
    MAX_QUEUE_NAME_CHARS,
    MAX_TIMEOUT_S,
    MAX_UNIQUE_KEY_BYTES,
    MIN_PRIORITY,
)
from reproq_prefork.model.stored_values import EARLIEST, LATEST
from reproq_prefork.store.migrate import migrate
from reproq_prefork.store.migration_files import known_migrations
from reproq_prefork.store.runs import enqueue_new
from tests.support.rows.odd_rows import without_limits
from tests.support.rows.stores import worker_store
from tests.support.supervisor.supervisor import Connection, insert_run, restoring, run_row

KNOWN = known_migrations()
BOUNDS = next(each.version for each in KNOWN if each.name == "bounds")
MICROSECOND = timedelta(microseconds=1)
SECONDS = ("timeout_seconds", "retry_base_seconds", "retry_max_seconds")
TIMES = ("run_after", "enqueued_at")
ODD_TIMES = (
    EARLIEST - MICROSECOND,
    LATEST + MICROSECOND,
    "4000-01-01 BC",
    "20000-01-01",
    "-infinity",
    "infinity",
)
UNSERVABLE = ("", "q" * (MAX_QUEUE_NAME_CHARS + 1), "a,b", " a", "a ", "a\nb", "\x7f", "q" * 10_000)


def next_real(seconds: float) -> float:
    """The next larger number that four bytes can hold."""
    (bits,) = struct.unpack("<i", struct.pack("<f", seconds))
    (following,) = struct.unpack("<f", struct.pack("<i", bits + 1))
    return float(following)


ALLOWED: list[tuple[str, object]] = [
    ("max_attempts", 1),
    ("max_attempts", MAX_ATTEMPTS),
    ("priority", MIN_PRIORITY),
    ("priority", MAX_PRIORITY),
    *((name, seconds) for name in SECONDS for seconds in (0, MAX_TIMEOUT_S)),
    *((name, moment) for name in TIMES for moment in (EARLIEST, LATEST)),
    ("queue_name", "q"),
    ("queue_name", "ä" * MAX_QUEUE_NAME_CHARS),
    ("unique_key", "k" * MAX_UNIQUE_KEY_BYTES),
]
REFUSED: list[tuple[str, object]] = [
    *(("max_attempts", number) for number in (-(2**31), -1, 0, MAX_ATTEMPTS + 1, 2**31 - 1)),
    *(("priority", number) for number in (-(2**15), MIN_PRIORITY - 1, MAX_PRIORITY + 1, 2**15 - 1)),
    *(
        (name, seconds)
        for name in SECONDS
        for seconds in (next_real(MAX_TIMEOUT_S), -1, 1e15, 3e38, math.inf, -math.inf, math.nan)
    ),
    *((name, moment) for name in TIMES for moment in ODD_TIMES),
    *(("queue_name", name) for name in UNSERVABLE),
    ("unique_key", ""),
    ("unique_key", "ä" * (MAX_UNIQUE_KEY_BYTES // 2) + "k"),
]


@pytest.mark.parametrize(("column", "value"), ALLOWED, ids=lambda value: str(value)[:40])
def test_the_limits_of_the_api_are_allowed_by_the_table(
    connection: Connection, column: str, value: object
) -> None:
    row = run_row(connection, insert_run(connection, {}, **{column: value}))
    assert row[column] == value


@pytest.mark.parametrize(("column", "value"), REFUSED, ids=lambda value: str(value)[:40])
def test_values_beyond_the_limits_of_the_api_are_refused_by_the_table(
    connection: Connection, column: str, value: object
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match=column.removesuffix("_seconds")):
        insert_run(connection, {}, **{column: value})


# The others are looked at where a run is inserted, and no worker changes them.
CHECKED = [each for each in REFUSED if each[0] not in ("queue_name", "unique_key", "enqueued_at")]


@pytest.mark.parametrize(("column", "value"), CHECKED, ids=lambda value: str(value)[:40])
def test_a_run_cannot_be_updated_to_a_value_that_a_new_run_may_not_have(
    connection: Connection, column: str, value: object
) -> None:
    run_id = insert_run(connection, {})
    change = psycopg.sql.SQL("update task_runs set {} = %s where id = %s").format(
        psycopg.sql.Identifier(column)
    )
    with pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(change, [value, run_id])


# --- what only a worker says of a run ---

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER_LIFE: list[dict[str, Any]] = [
    *({"status": status} for status in ("SUCCESSFUL", "FAILED", "CANCELLED")),
    {"status": "RUNNING", "leased_by": "w", "lease_expires_at": NOW},
    {"attempts": 1},
    {"attempts": 2**31 - 1},
    {"claims": 1},
    {"claims": 2**63 - 1},
    {"worker_ids": ["w"]},
    {"result": "1"},
    {"errors": '[{"kind": "failed"}]'},
    {"errors": "{}"},
    {"metadata": "{}"},
    {"last_attempt": "{}"},
    *(
        {column: moment}
        for column in (
            "started_at",
            "last_attempted_at",
            "finished_at",
            "cancel_requested_at",
            "finish_due_at",
        )
        for moment in (NOW, "infinity", "4000-01-01 BC")
    ),
]


@pytest.mark.parametrize("columns", LATER_LIFE, ids=str)
def test_a_new_run_must_be_unstarted_unless_it_is_restored(
    connection: Connection, columns: dict[str, Any]
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="a new run is PENDING") as refusal:
        insert_run(connection, {}, **columns)
    assert (refusal.value.diag.message_primary or "").endswith(f": leave out {', '.join(columns)}")
    assert "reproq.restore" in (refusal.value.diag.message_hint or "")
    with restoring(connection):
        run_id = insert_run(connection, {}, **columns)
    row = connection.execute("select status from task_runs where id = %s", [run_id]).fetchone()
    assert row == (columns.get("status", "PENDING"),)


@pytest.mark.parametrize("run_id", [0, -1, -(2**63)])
def test_the_id_of_a_new_run_is_no_less_than_one(connection: Connection, run_id: int) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="id must be 1 or more"):
        insert_run(connection, {}, id=run_id)


@pytest.mark.parametrize(
    ("turned_off", "is_restore"),
    [
        (("check_function_bodies", "row_security"), True),  # as pg_dump and pg_restore do
        (("check_function_bodies",), False),
        (("row_security",), False),
        ((), False),
    ],
    ids=str,
)
def test_a_restore_is_recognised_by_the_settings_of_pg_dump(
    connection: Connection, turned_off: tuple[str, ...], is_restore: bool
) -> None:
    for name in turned_off:
        connection.execute(f"set {name} = off".encode())
    connection.execute("select set_config('search_path', '', false)")
    statement = (
        "insert into public.task_runs (payload, spec_hash, status) values ('{}', repeat('0', 64), 'FAILED')"
    )
    if is_restore:
        connection.execute(statement)
    else:
        with pytest.raises(psycopg.errors.CheckViolation, match="a new run is PENDING"):
            connection.execute(statement)


@pytest.mark.parametrize("value", ["off", "no", "", "0", "maybe"])
def test_any_other_value_of_the_setting_is_not_a_restore(connection: Connection, value: str) -> None:
    connection.execute("select set_config('reproq.restore', %s, false)", [value])
    with pytest.raises(psycopg.errors.CheckViolation, match="a new run is PENDING"):
        insert_run(connection, {}, attempts=1)


# --- what the API takes, the table takes ---

MOMENTS = st.datetimes(
    min_value=EARLIEST.replace(tzinfo=None), max_value=LATEST.replace(tzinfo=None), timezones=st.just(UTC)
)
GIVEN_SECONDS = st.none() | st.floats(0, MAX_TIMEOUT_S)
# What a session may be told to be; text with a comma or control characters is refused by the API.
NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters=","),
    min_size=1,
    max_size=MAX_QUEUE_NAME_CHARS,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    options=st.fixed_dictionaries(
        {
            "queue_name": NAMES,
            "priority": st.integers(MIN_PRIORITY, MAX_PRIORITY),
            "run_after": st.none() | MOMENTS,
            "max_attempts": st.integers(1, MAX_ATTEMPTS),
            "timeout_seconds": GIVEN_SECONDS,
            "retry_base_seconds": GIVEN_SECONDS,
            "retry_max_seconds": GIVEN_SECONDS,
        }
    )
)
def test_the_table_accepts_everything_that_the_api_accepts(
    connection: Connection, options: Mapping[str, Any]
) -> None:
    run = enqueue_new(connection, NewRun.of({}, **options))
    assert (run.queue_name, run.run_after) == (options["queue_name"], options["run_after"])


# --- what was there before ---

# By name: what a row has, and what it has once the limits are there.
REPAIRED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "max_attempts": ({"max_attempts": 2**31 - 1}, {"max_attempts": MAX_ATTEMPTS}),
    "timeout": ({"timeout_seconds": 1e30}, {"timeout_seconds": MAX_TIMEOUT_S}),
    "retry": (
        {"retry_base_seconds": 3e38, "retry_max_seconds": 3.2e7},
        {"retry_base_seconds": MAX_TIMEOUT_S, "retry_max_seconds": MAX_TIMEOUT_S},
    ),
    "run_after BC": ({"run_after": "4000-01-01 BC"}, {"run_after": EARLIEST, "timeout_seconds": None}),
    "run_after late": ({"run_after": "20000-01-01"}, {"run_after": LATEST}),
    "enqueued_at": ({"enqueued_at": "-infinity"}, {"enqueued_at": EARLIEST, "run_after": None}),
    "enqueued_at late": ({"enqueued_at": "infinity"}, {"enqueued_at": LATEST}),
    "claims": ({"claims": -5}, {"claims": 0}),
    "worker_ids": ({"worker_ids": [["a", "b"], ["c", None]]}, {"worker_ids": ["a", "b", "c"]}),
    "worker_ids with null": ({"worker_ids": ["a", None]}, {"worker_ids": ["a"]}),
}
FAILED_WHERE_PENDING: list[dict[str, Any]] = [
    *({"queue_name": name} for name in UNSERVABLE),
    {"id": 0},
    {"attempts": 2**31 - 1},
    {"claims": 2**63 - 1},
]
STATUSES = ("PENDING", "RUNNING", "SUCCESSFUL", "FAILED", "CANCELLED")
HELD = {"RUNNING": {"leased_by": "w", "lease_expires_at": NOW}}


def version_of(connection: Connection, run_id: int) -> Any:
    return connection.execute(
        "select xmin::text, ctid::text from task_runs where id = %s", [run_id]
    ).fetchone()


def touch(connection: Connection, run_id: int) -> None:
    """What a change of status does: all CHECKs are evaluated again."""
    connection.execute("update task_runs set finish_due_at = null where id = %s", [run_id])


@pytest.mark.parametrize("status", STATUSES)
def test_existing_rows_are_changed_to_fit_the_limits_and_good_rows_are_not_rewritten(
    empty_database_url: str, status: str
) -> None:
    migrate(empty_database_url, KNOWN, to=BOUNDS - 1)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        held = HELD.get(status, {})
        good = insert_run(connection, {"n": 1}, status=status, **held)
        before = version_of(connection, good)
        runs = {
            name: insert_run(connection, {}, status=status, **held, **columns)
            for name, (columns, _) in REPAIRED.items()
        }
        migrate(empty_database_url, KNOWN, to=BOUNDS)
        assert version_of(connection, good) == before
        for name, run_id in runs.items():
            row = run_row(connection, run_id)
            assert {column: row[column] for column in REPAIRED[name][1]} == REPAIRED[name][1], name
            assert row["status"] == status
            touch(connection, run_id)
        migrate(empty_database_url, KNOWN, to=BOUNDS - 1)
        for run_id in runs.values():
            touch(connection, run_id)


@pytest.mark.parametrize("columns", FAILED_WHERE_PENDING, ids=lambda columns: str(columns)[:40])
@pytest.mark.parametrize("status", STATUSES)
def test_existing_waiting_rows_that_no_worker_can_claim_are_failed(
    empty_database_url: str, status: str, columns: dict[str, Any]
) -> None:
    migrate(empty_database_url, KNOWN, to=BOUNDS - 1)
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        run_id = insert_run(connection, {}, status=status, **HELD.get(status, {}), **columns)
        migrate(empty_database_url, KNOWN, to=BOUNDS)
        row = run_row(connection, run_id)
        touch(connection, run_id)
    assert row["status"] == ("FAILED" if status == "PENDING" else status)
    assert {column: row[column] for column in columns} == columns
    if status == "PENDING":
        (entry,) = row["errors"]
        assert entry["kind"] == "unreadable"
        assert "no worker can take this run" in entry["message"]
        assert row["finished_at"] is not None


# --- where the limits are not there ---


def test_a_claim_gives_numbers_within_the_limits_whatever_a_row_holds(
    database_url: str, connection: Connection
) -> None:
    without_limits(connection)
    largest: dict[str, Any] = {"max_attempts": 2**31 - 1, **dict.fromkeys(SECONDS, math.inf)}
    smallest: dict[str, Any] = {"max_attempts": -(2**31), "attempts": -9, **dict.fromkeys(SECONDS, -math.inf)}
    no_numbers: dict[str, Any] = dict.fromkeys(SECONDS, math.nan)
    store = worker_store(database_url)
    for columns, attempts, seconds in (
        (largest, MAX_ATTEMPTS, MAX_TIMEOUT_S),
        (smallest, 1, 0),
        (no_numbers, 3, MAX_TIMEOUT_S),
        ({}, 3, None),
    ):
        insert_run(connection, {}, **columns)
        (run,) = store.finish_and_claim((), max_runs=1).runs
        assert (run.attempt, run.max_attempts) == (1, attempts)
        assert (run.timeout_s, run.retry_base_s, run.retry_max_s) == (seconds, seconds, seconds)
    store.close()


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"id": 0}, "its id is 0"),
        ({"attempts": 2**31 - 1}, "cannot be counted any further"),
        ({"claims": 2**63 - 1}, "cannot be counted any further"),
        ({"worker_ids": [["a", "b"], ["c", "d"]]}, "more than one dimension"),
        *(({"run_after": moment}, "not in the years 2 to 9998") for moment in ("4000-01-01 BC", "-infinity")),
        *(({"enqueued_at": moment}, "not in the years") for moment in ("0001-12-31 UTC", "-infinity")),
        ({"started_at": "infinity"}, "not in the years 2 to 9998"),
        ({"enqueued_at": "20000-01-01", "run_after": NOW}, "not in the years 2 to 9998"),
    ],
    ids=str,
)
def test_an_unreadable_row_is_claimed_with_the_others_and_has_a_reason(
    database_url: str, connection: Connection, columns: dict[str, Any], why: str
) -> None:
    without_limits(connection)
    good = [insert_run(connection, {"n": 1})]
    odd = insert_run(connection, {}, **columns)
    good.append(insert_run(connection, {"n": 2}))
    store = worker_store(database_url)
    claimed: dict[int, str] = {}
    for _ in range(3):  # one with attempts is claimed by itself
        claim = store.finish_and_claim((), max_runs=10)
        claimed |= {run.id: "" for run in claim.runs} | {each.run.id: each.why for each in claim.unreadable}
    assert why in claimed.pop(odd)
    assert claimed == dict.fromkeys(good, "")
    store.close()


def test_an_enqueue_is_refused_with_one_sentence_before_anything_is_sent(connection: Connection) -> None:
    for moment in (EARLIEST - MICROSECOND, LATEST + MICROSECOND):
        with pytest.raises(ValueError, match=r"is not in the years 2 to 9998 \(UTC\)"):
            enqueue(connection, {}, run_after=moment)
