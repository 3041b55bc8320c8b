"""Enqueue, re-run and read: in the caller's transaction, exactly, and once a key."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row, namedtuple_row
from psycopg.types.json import set_json_loads

from reproq_prefork import Spec, Status, TaskRun, enqueue, get_run, requeue
from reproq_prefork.errors import RunNotFound, UniqueKeyHeld
from reproq_prefork.model.limits import MAX_PAYLOAD_BYTES
from reproq_prefork.model.new_run import InvalidRun
from reproq_prefork.spec import spec_hash
from reproq_prefork.spec.rules import SpecError
from reproq_prefork.store.json_columns import UnreadableJson
from reproq_prefork.store.psycopg_senders import PsycopgSender
from reproq_prefork.store.statements import statement
from reproq_prefork.store.unique_keys import KeyChangesHands

Connection = psycopg.Connection[Any]

NOBODYS_HASH = "ab" * 32
HOSTILE_TEXTS = [
    "'; drop table task_runs; --",
    '"; \\copy task_runs to program',
    "%s %(payload)s %%",
    "$1 $$ $tag$",
    "{} {{}} \\u0041 \\ \\\\",
    "\x01\x1f\x7f\x80\u2028\u202e\ufeff\U0001f600é",
]


def finish(connection: Connection, run_id: int, status: str = "SUCCESSFUL") -> None:
    connection.execute(
        "update task_runs set status = %s, finished_at = now(), leased_by = null, lease_expires_at = null "
        "where id = %s",
        (status, run_id),
    )


def count(connection: Connection) -> int:
    row = connection.execute("select count(*) as runs from task_runs").fetchone()
    return int(next(iter(row.values() if isinstance(row, dict) else row or ())))


# --- enqueue ---


def test_a_run_has_the_values_it_was_given(connection: Connection) -> None:
    payload = {"v": 1, "task": "shop.tasks.send", "args": [1, 0.1, None, True], "kwargs": {"é": "ü"}}
    moment = datetime(2031, 5, 17, 8, 30, tzinfo=UTC)
    run = enqueue(
        connection,
        payload,
        queue_name="mail",
        priority=-7,
        run_after=moment,
        max_attempts=5,
        timeout_seconds=2.5,
        unique_key="order 7",
    )
    assert run.payload == payload
    assert run.spec_hash == spec_hash(payload)
    assert run.task_path == "shop.tasks.send"
    assert (run.queue_name, run.priority, run.run_after, run.max_attempts) == ("mail", -7, moment, 5)
    assert (run.timeout_seconds, run.unique_key) == (2.5, "order 7")
    assert (run.status, run.attempts, run.claims, run.errors) == (Status.PENDING, 0, 0, ())
    assert run.created
    assert not run.is_finished
    assert get_run(connection, run.id) == run


def test_a_delay_ends_by_the_clock_of_the_server(connection: Connection) -> None:
    run = enqueue(connection, 1, run_after=timedelta(minutes=10))
    assert run.run_after is not None
    assert run.run_after - run.enqueued_at == timedelta(minutes=10)


def test_a_plain_insert_is_a_complete_enqueue(connection: Connection) -> None:
    spec = Spec.of({"n": 1})
    connection.execute(
        "insert into task_runs (payload, spec_hash) values (%s, %s)", (spec.canonical, spec.hash)
    )
    row = connection.execute("select max(id) from task_runs").fetchone()
    assert row
    plain, ours = get_run(connection, row[0]), enqueue(connection, {"n": 1})
    differing = {"id", "enqueued_at"}
    fields = [name for name in TaskRun.__slots__ if name not in differing]
    assert [getattr(plain, name) for name in fields] == [getattr(ours, name) for name in fields]


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_run_commits_and_rolls_back_with_the_callers_data(database_url: str, autocommit: bool) -> None:
    with (
        psycopg.connect(database_url, autocommit=autocommit) as connection,
        psycopg.connect(database_url, autocommit=True) as other,
    ):
        with contextlib.suppress(ZeroDivisionError), connection.transaction():
            enqueue(connection, "lost")
            raise ZeroDivisionError
        assert count(other) == 0
        with connection.transaction():
            enqueue(connection, "kept")
            assert count(other) == 0
        connection.commit()
        assert count(other) == 1


def test_enqueue_does_not_commit_for_the_caller(database_url: str) -> None:
    with psycopg.connect(database_url) as connection, psycopg.connect(database_url) as other:
        run = enqueue(connection, 1)
        assert get_run(connection, run.id) == run
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        with pytest.raises(RunNotFound):
            get_run(other, run.id)
        connection.rollback()
        assert count(connection) == 0


@pytest.fixture(params=["dict rows", "client cursors", "raw cursors", "serializable", "pipeline"])
def unusual_connection(request: pytest.FixtureRequest, database_url: str) -> Iterator[Connection]:
    options_of: dict[str, dict[str, Any]] = {
        "dict rows": {"row_factory": dict_row},
        "client cursors": {"cursor_factory": psycopg.ClientCursor},
        "raw cursors": {"cursor_factory": psycopg.RawCursor},
    }
    options = options_of.get(request.param, {})
    with psycopg.connect(database_url, **options) as connection, contextlib.ExitStack() as stack:
        if request.param == "serializable":
            connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        if request.param == "pipeline":
            stack.enter_context(connection.pipeline())
        yield connection
        connection.rollback()


def test_any_connection_works_and_keeps_its_settings(unusual_connection: Connection) -> None:
    connection = unusual_connection
    settings = ("row_factory", "cursor_factory", "autocommit", "isolation_level", "prepare_threshold")
    before = [getattr(connection, name) for name in settings]
    run = enqueue(connection, {"100%": "%s"}, unique_key="k")
    assert enqueue(connection, 2, unique_key="k").id == run.id
    finish_by_hand = psycopg.Cursor(connection)
    finish_by_hand.execute("update task_runs set status = 'FAILED', finished_at = now()")
    assert requeue(connection, run_id=run.id).replay_of == run.id
    assert get_run(connection, run.id).status is Status.FAILED
    assert [getattr(connection, name) for name in settings] == before


def test_a_connection_that_reads_json_in_its_own_way_gets_the_same_run(connection: Connection) -> None:
    set_json_loads(lambda text: "nonsense", connection)
    assert enqueue(connection, {"a": [1.5]}).payload == {"a": [1.5]}


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_any_text_goes_in_and_comes_out_as_it_was(connection: Connection, text: str) -> None:
    payload = {text: [text]}
    queue = "".join(char for char in text if char.isprintable() and char != ",").strip()
    run = enqueue(connection, payload, queue_name=queue, unique_key=text)
    assert (run.payload, run.queue_name, run.unique_key) == (payload, queue, text)
    assert requeue_after_end(connection, run).payload == payload


def requeue_after_end(connection: Connection, run: TaskRun) -> TaskRun:
    finish(connection, run.id)
    return requeue(connection, run_id=run.id)


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "",
        0.1,
        1e22,
        -0.0,
        1e300,
        5e-324,
        9007199254740993,
        10**399,
        Decimal("0.12345678901234567890123"),
        Decimal("1E-390"),
        {"b": 1, "a": {"\U0001f600": 1, "\ufb33": 2}},
    ],
    ids=repr,
)
def test_a_payload_comes_back_equal_and_with_its_hash(connection: Connection, payload: Any) -> None:
    run = enqueue(connection, payload)
    assert run.payload == payload
    assert spec_hash(run.payload) == run.spec_hash == spec_hash(payload)


def test_wrong_values_are_refused_without_breaking_the_transaction(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        enqueue(connection, 1)
        with pytest.raises(InvalidRun):
            enqueue(connection, 1, priority=1000)
        with pytest.raises(ValueError, match="NaN"):
            enqueue(connection, float("nan"))
        with pytest.raises(RunNotFound):
            get_run(connection, 2**63)
        with pytest.raises(InvalidRun, match="at most 19 digits"):
            get_run(connection, 10**5000)
        assert count(connection) == 1


# --- unique keys ---


def test_a_key_that_is_held_gives_the_run_that_holds_it(connection: Connection) -> None:
    first = enqueue(connection, 1, unique_key="k")
    second = enqueue(connection, 2, unique_key="k", queue_name="other")
    assert not second.created
    assert second == first
    assert count(connection) == 1


def test_a_key_is_free_again_when_its_run_has_finished(connection: Connection) -> None:
    first = enqueue(connection, 1, unique_key="k")
    finish(connection, first.id, "FAILED")
    second = enqueue(connection, 1, unique_key="k")
    assert second.created
    assert second.id != first.id


def test_the_holder_may_finish_between_the_two_statements(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The insert meets a holder that finishes before it is read: the insert is tried again."""
    first = enqueue(connection, 1, unique_key="k")
    fetch, asked = PsycopgSender.fetch, []

    def finish_first(sender: PsycopgSender, name: str, parameters: Any) -> Any:
        asked.append(name)
        if name == "run_that_holds_key":
            finish(connection, first.id)
        return fetch(sender, name, parameters)

    monkeypatch.setattr(PsycopgSender, "fetch", finish_first)
    second = enqueue(connection, 2, unique_key="k")
    assert second.created
    assert asked == ["enqueue_run", "run_that_holds_key", "enqueue_run"]


def test_a_key_that_changes_hands_without_end_is_an_error_with_a_sentence(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PsycopgSender, "fetch", lambda *arguments: ())
    with pytest.raises(KeyChangesHands, match="taken and given back 20 times"):
        enqueue(connection, 2, unique_key="k")


def test_one_of_many_who_enqueue_a_key_at_once_gets_it(database_url: str) -> None:
    """200 rounds of four callers, while the run of the round before finishes."""
    rounds, callers = 200, 4
    barrier = threading.Barrier(callers, timeout=30)
    seen: list[list[TaskRun]] = [[] for _ in range(rounds)]
    failures: list[BaseException] = []

    def call(number: int) -> None:
        try:
            with psycopg.connect(database_url, autocommit=True) as connection:
                for this_round in range(rounds):
                    barrier.wait()
                    if number == 0 and this_round:
                        finish(connection, max(run.id for run in seen[this_round - 1]))
                    seen[this_round].append(enqueue(connection, this_round, unique_key="k"))
                    barrier.wait()
        except BaseException as error:
            barrier.abort()
            failures.append(error)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert not failures
    created = [run.id for runs_of_round in seen for run in runs_of_round if run.created]
    with psycopg.connect(database_url) as connection:
        ids = [row[0] for row in connection.execute("select id from task_runs order by id").fetchall()]
        live = connection.execute("select count(*) from task_runs where status = 'PENDING'").fetchone()
    assert sorted(created) == ids
    assert live == (1,)
    assert all(sum(run.created for run in runs_of_round) == 1 for runs_of_round in seen)


def test_a_key_taken_since_the_snapshot_must_be_retried_by_the_caller(database_url: str) -> None:
    with psycopg.connect(database_url) as connection, psycopg.connect(database_url, autocommit=True) as other:
        connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        count(connection)
        holder = enqueue(other, 1, unique_key="k")
        with pytest.raises(psycopg.errors.SerializationFailure):
            enqueue(connection, 2, unique_key="k")
        connection.rollback()
        assert enqueue(connection, 2, unique_key="k").id == holder.id


# --- requeue ---


def test_a_copy_is_the_same_run_again_from_the_start(connection: Connection) -> None:
    run = enqueue(
        connection,
        {"v": 1, "task": "a.b", "args": [9007199254740993, 0.1], "kwargs": {}},
        queue_name="mail",
        priority=9,
        run_after=timedelta(days=1),
        max_attempts=7,
        timeout_seconds=3,
        unique_key="k",
        executor="inline",
        atomic=True,
        retry_base_seconds=2,
        retry_max_seconds=4,
    )
    connection.execute(
        "update task_runs set status = 'FAILED', attempts = 7, claims = 7, worker_ids = '{a,b}', "
        """errors = '[{"kind": "failed"}]', finished_at = now() where id = %s""",
        (run.id,),
    )
    copy = requeue(connection, run_id=run.id)
    assert copy.replay_of == run.id
    same = (
        *("payload", "spec_hash", "task_path", "queue_name", "priority", "max_attempts", "timeout_seconds"),
        *("unique_key", "executor", "atomic", "retry_base_seconds", "retry_max_seconds"),
    )
    kept = {name: getattr(copy, name) for name in same}
    assert kept == {name: getattr(run, name) for name in same}
    assert None not in kept.values()
    assert (copy.status, copy.attempts, copy.claims, copy.worker_ids) == (Status.PENDING, 0, 0, ())
    assert (copy.errors, copy.run_after, copy.created) == ((), None, True)


def test_a_copy_keeps_the_numbers_as_another_program_wrote_them(connection: Connection) -> None:
    row = connection.execute(
        "insert into task_runs (payload, spec_hash) values ('[1.50, 1e5]', %s) returning id", (NOBODYS_HASH,)
    ).fetchone()
    assert row
    copy = requeue(connection, run_id=row[0])
    assert copy.spec_hash == NOBODYS_HASH
    texts = connection.execute("select payload::text from task_runs").fetchall()
    assert texts == [("[1.50, 100000]",)] * 2


def test_the_newest_run_of_a_hash_is_copied(connection: Connection) -> None:
    runs = [enqueue(connection, {"n": 1}, queue_name=name) for name in ("first", "second")]
    enqueue(connection, {"n": 2}, queue_name="another spec")
    copy = requeue(connection, spec_hash=runs[0].spec_hash)
    assert (copy.replay_of, copy.queue_name) == (runs[1].id, "second")
    assert requeue(connection, spec_hash=runs[0].spec_hash).replay_of == copy.id


def test_two_specs_whose_hashes_share_sixteen_digits_are_distinguished(connection: Connection) -> None:
    hashes = ["1" * 63 + "0", "1" * 63 + "2"]
    for each in hashes:
        connection.execute("insert into task_runs (payload, spec_hash) values ('1', %s)", (each,))
    assert requeue(connection, spec_hash=hashes[0]).spec_hash == hashes[0]


def test_a_missing_run_cannot_be_copied(connection: Connection) -> None:
    for missing in (0, 999, -(2**63), 2**63, -(2**63) - 1):
        with pytest.raises(RunNotFound, match=rf"the id {missing} in"):
            requeue(connection, run_id=missing)
    with pytest.raises(RunNotFound, match=f"the spec hash {NOBODYS_HASH}"):
        requeue(connection, spec_hash=NOBODYS_HASH)


@pytest.mark.parametrize("spec_hash", ["", "ab", "AB" * 32, "ab" * 33, "g" * 64, "ab" * 32 + "\n", 5])
def test_a_wrong_hash_is_refused_with_the_right_form(connection: Connection, spec_hash: Any) -> None:
    with pytest.raises(InvalidRun, match="64 lower-case hexadecimal digits"):
        requeue(connection, spec_hash=spec_hash)


@pytest.mark.parametrize("run_id", ["5", 5.0, True, None])
def test_a_wrong_id_is_refused(connection: Connection, run_id: Any) -> None:
    with pytest.raises(InvalidRun, match="A run's id is a whole number"):
        get_run(connection, run_id)


def test_either_an_id_or_a_hash_is_given(connection: Connection) -> None:
    with pytest.raises(TypeError):
        requeue(connection)
    with pytest.raises(TypeError):
        requeue(connection, run_id=1, spec_hash=NOBODYS_HASH)


def test_a_run_whose_key_is_held_cannot_be_copied(connection: Connection) -> None:
    first = enqueue(connection, 1, unique_key="k")
    with pytest.raises(UniqueKeyHeld, match=f'key "k" is held by run {first.id}'):
        requeue(connection, run_id=first.id)
    finish(connection, first.id)
    second = requeue(connection, run_id=first.id)
    with pytest.raises(UniqueKeyHeld) as caught:
        requeue(connection, spec_hash=first.spec_hash)
    assert caught.value.run_id == second.id


def test_a_run_is_found_by_its_hash_beside_another_spec_of_the_same_key(connection: Connection) -> None:
    """Both hashes have the same first 16 digits."""
    one, other = "ab" * 32, "ab" * 8 + "cd" * 24
    ids = {}
    for each in (one, other, other):
        row = connection.execute(
            "insert into task_runs (payload, spec_hash) values ('1', %s) returning id", [each]
        ).fetchone()
        assert row is not None
        ids[each] = row[0]
    assert requeue(connection, spec_hash=other).replay_of == ids[other]
    assert requeue(connection, spec_hash=one).replay_of == ids[one]
    with pytest.raises(RunNotFound):
        requeue(connection, spec_hash="ab" * 8 + "ef" * 24)


def test_specs_are_deleted_with_their_runs(connection: Connection) -> None:
    runs = [enqueue(connection, number) for number in range(5)]
    assert specs(connection) == {run.id: int(run.spec_hash[:16], 16) % 2**64 for run in runs}
    connection.execute("delete from task_runs where id = any (%s)", [[run.id for run in runs[:3]]])
    assert specs(connection).keys() == {run.id for run in runs[3:]}
    with pytest.raises(RunNotFound):
        requeue(connection, spec_hash=runs[0].spec_hash)
    connection.execute("truncate task_runs")
    assert specs(connection) == {}


def specs(connection: Connection) -> dict[int, int]:
    """The key of each run, without a sign."""
    rows = connection.execute("select run_id, spec_key from reproq_specs").fetchall()
    return {run_id: key % 2**64 for run_id, key in rows}


def test_a_table_of_the_caller_does_not_replace_the_table_of_specs(connection: Connection) -> None:
    """The triggers have the rights of the schema's owner, so they must not use another table."""
    connection.execute("create temporary table reproq_specs (spec_key bigint, run_id bigint)")
    run = enqueue(connection, 1)
    assert connection.execute("select count(*) from pg_temp.reproq_specs").fetchone() == (0,)
    assert connection.execute("select run_id from public.reproq_specs").fetchall() == [(run.id,)]


def test_the_newest_run_of_a_hash_is_found_by_its_index(connection: Connection) -> None:
    with connection.transaction():
        connection.execute(
            "insert into task_runs (payload, spec_hash) select '1', %s from generate_series(1, 20000)",
            (NOBODYS_HASH,),
        )
        connection.execute(
            "insert into task_runs (payload, spec_hash) "
            "select '1', md5(n::text) || md5(n::text) from generate_series(1, 50000) as n"
        )
    connection.execute("set plan_cache_mode = force_generic_plan")
    for analysed in (False, True):
        if analysed:
            connection.execute("analyze task_runs, reproq_specs")
        with psycopg.Cursor(connection, row_factory=namedtuple_row) as cursor:
            plan = "\n".join(
                row[0]
                for row in cursor.execute(
                    "explain (analyze, buffers) " + statement("newest_run_of_spec"),
                    {"spec_hash": NOBODYS_HASH},
                    prepare=True,
                ).fetchall()
            )
        assert "reproq_specs_pkey" in plan, plan
        actual = [float(rows) for rows in re.findall(r"actual .*?rows=([\d.]+)", plan)]
        assert max(actual) == 1, plan


@pytest.mark.parametrize(
    "payload", [{"v": 1, "task": "a.b"}, {"v": True, "task": "a.b"}, {"v": 1, "task": 1}, [0.1, 10**30], None]
)
@pytest.mark.parametrize("seconds", [None, 0, 0.1, 1 / 3, 16777217, 31536000])
@pytest.mark.parametrize(
    "run_after", [None, timedelta(hours=1), datetime(2031, 5, 17, 8, 30, 1, 250, tzinfo=UTC)]
)
def test_enqueue_returns_the_run_as_it_is_stored(
    connection: Connection, payload: Any, seconds: float | None, run_after: datetime | timedelta | None
) -> None:
    """Most values of a new run are known without asking the server."""
    connection.execute("set time zone 'Asia/Kathmandu'")
    run = enqueue(
        connection,
        payload,
        run_after=run_after,
        timeout_seconds=seconds,
        retry_base_seconds=seconds,
        unique_key="k" if seconds else None,
        atomic=seconds is None,
    )
    read = get_run(connection, run.id)
    assert run == read
    # jsonb has its own order of keys; all else is the same to the type of a number and the zone of a time.
    assert repr(replace(run, payload=read.payload)) == repr(read)


# --- what the table itself refuses ---


def insert(connection: Connection, **columns: Any) -> None:
    values = {"payload": "{}", "spec_hash": NOBODYS_HASH} | columns
    names = ", ".join(values)
    places = ", ".join(f"%({name})s" for name in values)
    text = f"insert into task_runs ({names}) values ({places})"  # noqa: S608 (names from this file)
    connection.execute(text.encode(), values)


@pytest.mark.parametrize(
    ("columns", "refusal"),
    [
        ({"spec_hash": "AB" * 32}, "spec_hash must be 64 lower-case hexadecimal digits"),
        ({"spec_hash": ""}, "spec_hash must be 64"),
        ({"spec_hash": "ab" * 32 + "\n"}, "spec_hash must be 64"),
        ({"priority": 101}, "priority_range"),
        ({"priority": -101}, "priority_range"),
        ({"timeout_seconds": -1}, "timeout"),
        ({"max_attempts": 0}, "max_attempts_range"),
        ({"status": "READY"}, "status_known"),
        ({"status": "RUNNING"}, "running_has_a_holder"),
        ({"leased_by": "w", "lease_expires_at": datetime(2026, 1, 1, tzinfo=UTC)}, "running_has_a_holder"),
        ({"payload": '"' + "x" * (1024 * 1024 - 1) + '"'}, "payload is 1048577 bytes as text"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_the_table_refuses_invalid_runs(
    connection: Connection, columns: dict[str, Any], refusal: str
) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match=refusal):
        insert(connection, **columns)


def test_a_timeout_that_is_not_a_number_is_refused_by_the_table(connection: Connection) -> None:
    for timeout in (float("inf"), float("nan")):
        with pytest.raises(psycopg.errors.CheckViolation, match="timeout"):
            insert(connection, timeout_seconds=timeout)


def test_the_limits_themselves_are_allowed(connection: Connection) -> None:
    insert(connection, priority=100, max_attempts=1, timeout_seconds=0)
    insert(connection, priority=-100, payload='"' + "x" * (1024 * 1024 - 2) + '"')
    assert count(connection) == 2


def test_the_payload_and_the_hash_of_a_run_never_change(connection: Connection) -> None:
    run = enqueue(connection, {"n": 1})
    changes = (
        "payload = '[1.0]'",
        f"spec_hash = '{NOBODYS_HASH}'",
        """payload = '{"n": 1.0}'""",
        "task_path = 'a.b'",
    )
    for change in changes:
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match=f"run {run.id} are immutable"):
            connection.execute(f"update task_runs set {change}".encode())  # noqa: S608
    connection.execute("update task_runs set payload = payload, spec_hash = spec_hash, priority = 1")
    assert get_run(connection, run.id).payload == {"n": 1}


@pytest.mark.parametrize(
    ("payload", "path"),
    [
        ('{"v": 1, "task": "a.b"}', "a.b"),
        ('{"v": 2, "task": "a.b"}', None),
        ('{"v": 1, "task": ["a.b"]}', None),
        ('{"v": 1}', None),
        ('"a.b"', None),
        ("null", None),
    ],
)
def test_the_path_of_a_task_comes_from_the_payload_whatever_a_producer_writes(
    connection: Connection, payload: str, path: str | None
) -> None:
    insert(connection, payload=payload)
    insert(connection, payload=payload, task_path="not.that")
    assert connection.execute("select task_path from task_runs").fetchall() == [(path,), (path,)]


def test_a_payload_that_python_cannot_hold_is_still_readable(connection: Connection) -> None:
    insert(connection, payload="[1e500]")
    row = connection.execute("select id from task_runs").fetchone()
    assert row
    run = get_run(connection, row[0])
    assert isinstance(run.payload, UnreadableJson)
    assert run.payload.text == "[1" + "0" * 500 + "]"
    assert requeue(connection, run_id=run.id).payload == run.payload


def test_an_infinite_time_is_refused_by_the_table(connection: Connection) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="run_after"):
        insert(connection, run_after="infinity")


def test_the_size_limit_of_a_payload_is_that_of_the_table(connection: Connection) -> None:
    largest = [1] * (MAX_PAYLOAD_BYTES // 3)
    assert enqueue(connection, largest).payload == largest
    with pytest.raises(SpecError, match="the limit is"):
        enqueue(connection, [*largest, 1])
