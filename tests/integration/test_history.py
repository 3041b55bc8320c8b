"""What a run remembers of its attempts is bounded, whoever adds to it and whatever stands in its row already."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import reproq_prefork
from reproq_prefork.model.run import OMITTED, Status, omitted_entries
from reproq_prefork.model.settlement import Settlement, handed_back
from reproq_prefork.store.runs import cancel, get_run
from reproq_prefork.store.worker_store import WorkerStore
from tests.support.postgres.databases import as_login, new_database
from tests.support.postgres.servers import Server
from tests.support.rows.stores import lost_worker, steward_store, worker_store
from tests.support.supervisor.command_line import CommandLine
from tests.support.supervisor.supervisor import Connection, add_run, run_row

KEPT = 20
MAX_BYTES = 2048  # of a text of an older entry
MAX_WHOLE_BYTES = 8192  # of all older entries together, as PostgreSQL has them in memory, if nothing is cut
OUTPUT_BYTES = 64 * 1024
SQL_FILES = Path(reproq_prefork.__file__).parent / "store" / "sql"


def append(connection: Connection, errors: Any, entry: dict[str, Any]) -> Any:
    """What `errors`, any JSON, is with one more entry."""
    row = connection.execute(
        "select reproq_append_error(%s, %s)", [json.dumps(errors), json.dumps(entry)]
    ).fetchone()
    assert row is not None
    return row[0]


def is_bounded(connection: Connection, errors: Sequence[Any]) -> bool:
    older = errors[:-1]
    return len(older) <= 2 * KEPT and (
        size_of(connection, older) <= MAX_WHOLE_BYTES
        or all(
            len(text_of(value).encode()) <= MAX_BYTES
            for entry in older
            for value in (entry.values() if isinstance(entry, dict) else [entry])
        )
    )


def size_of(connection: Connection, errors: Any) -> int:
    row = connection.execute("select pg_column_size(%s::jsonb)", [json.dumps(errors)]).fetchone()
    assert row is not None
    return int(row[0])


def text_of(value: Any) -> str:
    """Rather shorter than PostgreSQL writes it."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def output(number: int) -> str:
    """64 KiB that no compression makes small, with its number at the end."""
    import random

    return f"{random.Random(number).randbytes(OUTPUT_BYTES // 2 - 8).hex()}{number:>16}"


# --- the function ---


def test_the_first_and_last_20_errors_are_kept_and_the_others_counted(connection: Connection) -> None:
    errors: Any = []
    for number in range(2 * KEPT):
        errors = append(connection, errors, {"attempt": number})
    assert [entry["attempt"] for entry in errors] == list(range(2 * KEPT))
    for number in range(2 * KEPT, 100):
        errors = append(connection, errors, {"attempt": number})
        left_out = number + 1 - 2 * KEPT
        first, (mark,), last = errors[:KEPT], errors[KEPT : KEPT + 1], errors[KEPT + 1 :]
        assert [entry["attempt"] for entry in first] == list(range(KEPT))
        assert mark == {
            "kind": "omitted",
            "omitted": left_out,
            "message": f"{left_out} entries are left out here",
        }
        assert [entry["attempt"] for entry in last] == list(range(number + 1 - KEPT, number + 1))


@pytest.mark.parametrize("char", ["x", "é", "字", "\U0001f600", "\x01", '"'])
def test_only_the_newest_entry_has_all_of_its_output(connection: Connection, char: str) -> None:
    whole = {"kind": "failed", "message": "no", "stderr": char * 30_000 + "the end", "traceback": "short"}
    errors = append(connection, [], whole)
    assert errors == [whole]
    errors = append(connection, errors, whole)
    older, newest = errors
    assert newest == whole
    assert older == {**whole, "stderr": older["stderr"]}
    assert re.fullmatch(rf"\[\.\.\.\] {re.escape(char)}+the end", older["stderr"])
    assert 2_000 < len(older["stderr"].encode()) <= MAX_BYTES
    again = append(connection, errors, {"kind": "failed"})
    assert again[0] == older
    assert again[2] == {"kind": "failed"}


def test_a_text_of_mixed_characters_is_cut_between_two_of_them(connection: Connection) -> None:
    text = "a" * 60_000 + "\U0001f600" * 1_500
    (older, _) = append(connection, [{"stderr": text}], {})
    assert older["stderr"] == "[...] " + "\U0001f600" * 510, "the longest end of it that fits"


def test_a_text_of_just_the_limit_is_left_whole(connection: Connection) -> None:
    fits, does_not = {"output": "x" * MAX_BYTES}, {"output": "x" * (MAX_BYTES + 1)}
    errors = append(connection, [fits, does_not] * 2, {})
    assert errors == [fits, {"output": "[...] " + "x" * (MAX_BYTES - 6)}] * 2 + [{}]


def test_no_entry_is_cut_while_all_together_are_short(connection: Connection) -> None:
    around = size_of(connection, [{"output": ""}])
    whole, too_long = ([{"output": "x" * (MAX_WHOLE_BYTES - around + more)}] for more in (0, 1))
    assert append(connection, whole, {}) == [*whole, {}]
    assert append(connection, too_long, {}) == [{"output": "[...] " + "x" * (MAX_BYTES - 6)}, {}]


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
    | st.sampled_from(["y" * 5_000, "ü" * 1_500, "omitted"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["kind", "omitted", "stderr", "a", ""]), inner, max_size=4)
    ),
    max_leaves=10,
)
ANY_ERRORS = (
    ANY_JSON
    | st.lists(ANY_JSON, max_size=6)
    | st.builds(
        lambda some, times: some * times, st.lists(ANY_JSON, min_size=1, max_size=5), st.integers(1, 20)
    )
)


@pytest.fixture(scope="module")
def module_connection(template_url: str, server: Server) -> Iterator[Connection]:
    with (
        new_database(server.url, template_url) as url,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        yield connection


@given(ANY_ERRORS)
@example([{"kind": "omitted", "omitted": 10**400}] * 60)
@example([{"kind": "omitted", "omitted": "7"}] * 60)
@example([[]] * 21 + [None] * 30)
@example({"kind": "omitted"})
@example("text")
@example(None)
@example([{"a": 1}] * 20 + [{"kind": "omitted", "omitted": 3}])
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_an_entry_can_be_added_to_any_stored_errors_and_all_stays_bounded(
    module_connection: Connection, errors: Any
) -> None:
    entry = {"kind": "failed", "stderr": "z" * 10_000}
    once = append(module_connection, errors, entry)
    assert once[-1] == entry
    assert is_bounded(module_connection, once)
    twice = append(module_connection, once, {"kind": "killed"})
    assert is_bounded(module_connection, twice)
    assert twice[-1] == {"kind": "killed"}
    assert len(twice) >= len(once)


def test_no_search_path_of_a_caller_changes_what_it_does(connection: Connection) -> None:
    connection.execute("create schema mine")
    connection.execute(
        "create function mine.octet_length(text) returns integer language sql as 'select 0';"
        "create function mine.jsonb_array_length(jsonb) returns integer language sql as 'select 0';"
        "create function mine.cardinality(text[]) returns integer language sql as 'select 0';"
        "create function mine.pg_column_size(jsonb) returns integer language sql as 'select 0'"
    )
    connection.execute("set search_path = mine, public, pg_catalog")
    errors = [{"attempt": number, "stderr": "x" * 9_000} for number in range(50)]
    bounded = append(connection, errors, {})
    row = connection.execute(
        "select cardinality(array[]::text[]), "
        "pg_catalog.cardinality(reproq_append_worker(array_fill('w'::text, array[50]), 'x'))"
    ).fetchone()
    assert row == (0, 40)
    connection.execute("reset search_path")
    assert is_bounded(connection, bounded)


def test_a_worker_may_add_an_entry_even_if_new_functions_are_not_public(
    server: Server, empty_database_url: str
) -> None:
    from tests.support.postgres.databases import apply_migrations

    with psycopg.connect(empty_database_url, autocommit=True) as owner:
        owner.execute("alter default privileges revoke execute on functions from public")
    apply_migrations(empty_database_url)
    with psycopg.connect(as_login(empty_database_url, "worker"), autocommit=True) as worker:
        long = [{"stderr": "x" * 5_000}] * 50
        assert len(append(worker, long, {})) == 2 * KEPT + 1
        worker.execute("select reproq_append_worker(array_fill('w'::text, array[50]), 'x')")


# --- who adds ---


def failed(run: Any, *, stderr: str = "", status: Status = Status.PENDING) -> Settlement:
    error = {"kind": "failed", "message": "no", "stderr": stderr}
    return Settlement(
        run.id, run.claim, status, error=error, delay_s=0.0 if status is Status.PENDING else None
    )


def claim(store: WorkerStore) -> Any:
    (run,) = store.finish_and_claim([], max_runs=1).runs
    return run


def an_old_run(connection: Connection, *, entries: int = 60, size: int = 3_000, **columns: Any) -> int:
    """A run as an earlier release has left it after so many attempts."""
    errors = [{"kind": "failed", "attempt": n, "stderr": "x" * size} for n in range(1, entries + 1)]
    workers = [f"w{n}" for n in range(1, entries + 1)]
    return add_run(
        connection,
        {"v": 1, "task": "shop.work"},
        max_attempts=1_000,
        attempts=entries,
        claims=entries,
        worker_ids=workers,
        errors=json.dumps(errors),
        **columns,
    )


def finish(store: WorkerStore, _url: str, run: Any, _connection: Connection) -> None:
    assert store.finish_and_claim([failed(run, status=Status.FAILED)], max_runs=0).settled == 1


def hand_back_cancelled(store: WorkerStore, _url: str, run: Any, connection: Connection) -> None:
    connection.execute("update task_runs set cancel_requested_at = now()")
    store.finish_and_claim([handed_back(*run.token)], max_runs=0)


def lose_the_worker(_store: WorkerStore, url: str, run: Any, _connection: Connection) -> None:
    with closing(steward_store(url)) as steward:
        assert len(steward.reset_worker(lost_worker(started=run.token))) == 1


def lose_a_worker_whose_run_was_cancelled(
    _store: WorkerStore, url: str, _run: Any, connection: Connection
) -> None:
    connection.execute("update task_runs set cancel_requested_at = now()")
    with closing(steward_store(url)) as steward:
        assert len(steward.reset_worker(lost_worker())) == 1


def end_the_lease(_store: WorkerStore, url: str, _run: Any, connection: Connection) -> None:
    connection.execute("update task_runs set lease_expires_at = now() - interval '1 minute'")
    connection.execute("update reproq_workers set lease_expires_at = now() - interval '1 second'")
    with closing(steward_store(url)) as steward:
        assert len(steward.sweep_expired()) == 1


def cancel_what_waits(store: WorkerStore, _url: str, run: Any, connection: Connection) -> None:
    store.finish_and_claim([handed_back(*run.token)], max_runs=0)
    cancel(connection, run.id)


def hand_back_what_waits(store: WorkerStore, url: str, run: Any, connection: Connection) -> None:
    """As if the run had been claimed behind another one that takes long, and was cancelled since."""
    other = add_run(connection, {}, priority=9)
    connection.execute(
        "update task_runs set status = 'RUNNING', claims = 1, attempts = 1, leased_by = 'w', "
        "lease_expires_at = now() + interval '1 hour', worker_ids = '{w}', "
        "last_attempted_at = (select last_attempted_at from task_runs where id = %s) where id = %s",
        [run.id, other],
    )
    connection.execute("update task_runs set cancel_requested_at = now() where id = %s", [run.id])
    with closing(steward_store(url)) as steward:
        assert [each.id for each in steward.hand_back_waiting("w", other, 1)] == [run.id]


@pytest.mark.parametrize(
    "end",
    [
        finish,
        hand_back_cancelled,
        lose_the_worker,
        lose_a_worker_whose_run_was_cancelled,
        end_the_lease,
        cancel_what_waits,
        hand_back_what_waits,
    ],
)
def test_every_statement_that_adds_an_entry_keeps_the_bounds(
    database_url: str,
    connection: Connection,
    end: Callable[[WorkerStore, str, Any, Connection], None],
) -> None:
    run_id = an_old_run(connection)
    with closing(worker_store(database_url)) as store:
        run = claim(store)
        end(store, database_url, run, connection)
    row = run_row(connection, run_id)
    assert len(row["errors"]) == 2 * KEPT + 1
    assert row["errors"][KEPT]["omitted"] == 61 - 2 * KEPT
    assert is_bounded(connection, row["errors"])
    assert [entry["attempt"] for entry in row["errors"][:KEPT]] == list(range(1, KEPT + 1))
    assert [entry["attempt"] for entry in row["errors"][KEPT + 1 : -1]] == list(range(42, 61))
    assert row["errors"][-1]["kind"] in ("failed", "cancelled", "worker_lost", "lease_expired")
    assert len(row["worker_ids"]) <= 2 * KEPT


@pytest.mark.parametrize("path", sorted(SQL_FILES.rglob("*.sql")), ids=lambda path: path.stem)
def test_every_statement_adds_entries_by_the_shared_function(path: Path) -> None:
    assert not re.search(r"\b(errors|worker_ids)\s*\|\|", path.read_text())


def test_the_first_and_last_20_workers_are_kept_and_a_refund_drops_the_last(
    database_url: str, connection: Connection
) -> None:
    run_id = add_run(connection, {}, max_attempts=1_000)
    ids: list[str] = []
    for number in range(1, 101):
        worker_id = f"w{number}"
        with closing(worker_store(database_url, worker_id)) as store:
            run = claim(store)
            ids = [*ids[:KEPT], *[*ids[KEPT:], worker_id][-KEPT:]] if len(ids) >= KEPT else [*ids, worker_id]
            assert list(run.history.worker_ids) == ids
            if number % 7 == 0:
                store.finish_and_claim([handed_back(*run.token)], max_runs=0)
                ids = ids[:-1]
            else:
                store.finish_and_claim([failed(run)], max_runs=0)
            assert run_row(connection, run_id)["worker_ids"] == ids
    row = run_row(connection, run_id)
    assert (row["attempts"], row["claims"]) == (100 - 100 // 7, 100)


@pytest.mark.parametrize("found", ["[5:6]={a,b}", "[0:0]={a}", "{NULL,b}", "{}"])
def test_a_run_is_claimed_whatever_list_of_workers_it_has(
    database_url: str, connection: Connection, found: str
) -> None:
    run_id = add_run(connection, {}, worker_ids=found)
    connection.execute("update task_runs set attempts = cardinality(worker_ids)")
    before = [each for row in connection.execute("select unnest(worker_ids) from task_runs") for each in row]
    with closing(worker_store(database_url)) as store:
        run = claim(store)
        assert list(run.history.worker_ids) == [*filter(None, before), "w"], "a null names no worker"
        store.finish_and_claim([handed_back(*run.token)], max_runs=0)
    assert run_row(connection, run_id)["worker_ids"] == before


# --- what it costs ---


def test_a_retry_storm_writes_a_bounded_row_and_a_bounded_log(
    database_url: str, connection: Connection
) -> None:
    """Each attempt writes 64 KiB that cannot be compressed. Earlier, the last one wrote 65 MB."""
    attempts = 200
    run_id = add_run(connection, {}, max_attempts=1_000)
    with closing(worker_store(database_url)) as store:
        wal: list[int] = []
        for number in range(attempts):
            run = claim(store)
            if run.attempt > 1:
                assert run.errors is not None
                assert len(run.errors) < 200 * 1024
            before = wal_position(connection)
            store.finish_and_claim([failed(run, stderr=output(number))], max_runs=0)
            wal.append(wal_position(connection) - before)
    row = connection.execute(
        "select pg_column_size(errors), octet_length(errors::text), jsonb_array_length(errors), "
        "errors -> 20 -> 'omitted' from task_runs where id = %s",
        [run_id],
    ).fetchone()
    assert row is not None
    stored, as_text, entries, omitted = row
    assert (entries, omitted) == (2 * KEPT + 1, attempts - 2 * KEPT)
    assert stored < 200 * 1024
    assert as_text < 200 * 1024
    # A full page may be written with each; nothing else writes at this time but autovacuum, now and then.
    assert sorted(wal)[len(wal) // 2] < 400 * 1024, "the median"
    print(
        f"{attempts} attempts: row {stored} bytes, WAL an attempt {sorted(wal)[len(wal) // 2]}",
        file=sys.stderr,
    )


def wal_position(connection: Connection) -> int:
    row = connection.execute("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None
    return int(row[0])


def test_a_row_that_has_grown_to_65_mb_is_bounded_by_its_next_attempt(
    database_url: str, connection: Connection
) -> None:
    run_id = add_run(connection, {}, max_attempts=1_000, attempts=900, claims=900)
    connection.execute(
        "update task_runs set errors = (select jsonb_agg(jsonb_build_object("
        "  'kind', 'failed', 'attempt', n,"
        "  'stderr', (select string_agg(md5(n::text || i), '') from generate_series(1, 2048) as i)"
        ")) from generate_series(1, 1000) as n)"
    )
    with closing(worker_store(database_url)) as store:  # whose statements may take 5 s
        run = claim(store)
        assert store.finish_and_claim([failed(run, stderr=output(0))], max_runs=0).settled == 1
        assert len(claim(store).errors) < 200 * 1024
    row = run_row(connection, run_id)
    assert is_bounded(connection, row["errors"])
    assert row["errors"][KEPT]["omitted"] == 1_001 - 2 * KEPT
    assert row["errors"][-1]["stderr"] == output(0)


# --- who reads ---


def test_show_prints_the_number_of_omitted_entries_at_their_place(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    run_id = an_old_run(connection, entries=1_240, size=10)
    with closing(worker_store(database_url)) as store:
        finish(store, database_url, claim(store), connection)
    lines = CommandLine(tmp_path, database_url).output("show", str(run_id)).splitlines()
    attempts = [line for line in lines if line.startswith(("  attempt ", "  ..."))]
    assert [line.split(",")[0] for line in attempts[KEPT - 1 : KEPT + 2]] == [
        "  attempt 20: failed",
        "  ... 1",
        "  attempt 1222: failed",
    ]
    assert attempts[KEPT] == "  ... 1,201 more, which were not kept"
    assert get_run(connection, run_id).errors[KEPT]["kind"] == OMITTED


@pytest.mark.parametrize(
    ("entry", "omitted"),
    [
        ({"kind": "omitted", "omitted": 7}, 7),
        ({"kind": "omitted"}, 0),
        ({"kind": "omitted", "omitted": "7"}, 0),
        ({"kind": "failed", "omitted": 7}, None),
        ({}, None),
        ("omitted", None),
        (None, None),
    ],
)
def test_the_entry_for_omitted_errors_is_recognised(entry: Any, omitted: int | None) -> None:
    assert omitted_entries(entry) == omitted
