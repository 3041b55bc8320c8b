"""Many runs at once are what they would be one by one: by one INSERT, by several, or by COPY."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg.rows import dict_row

from reproq_prefork import NewRun, Spec, Status, TaskRun, enqueue, enqueue_many, get_run
from reproq_prefork.store import bulk
from reproq_prefork.store.psycopg_senders import PsycopgSender
from reproq_prefork.store.statements import statement
from reproq_prefork.store.unique_keys import KeyChangesHands

Connection = psycopg.Connection[Any]

HOSTILE = [
    {"text": "'; drop table task_runs; -- \\ \t \\N \\. %s %(runs)s"},
    {"é\u2028\U0001f600": "\x01\x7f"},
    [0.1, 1e300, -0.0, 10**40, 1.5e-7],
    "\\",
    None,
    {"v": 1, "task": "shop.send", "args": [[]], "kwargs": {}},
]


@pytest.fixture(params=["one insert", "many inserts", "copy"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How runs without unique keys go; small numbers take the ways of large ones."""
    monkeypatch.setattr(bulk, "COPY_FROM", 1 if request.param == "copy" else 10**9)
    if request.param == "many inserts":
        monkeypatch.setattr(bulk, "BATCH_RUNS", 2)
    return str(request.param)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the statements that are sent."""
    fetch, names = PsycopgSender.fetch, []

    def noted(sender: PsycopgSender, name: str, parameters: Any) -> Sequence[Any]:
        names.append(name)
        return fetch(sender, name, parameters)

    monkeypatch.setattr(PsycopgSender, "fetch", noted)
    return names


def ids(runs: Sequence[TaskRun]) -> list[int]:
    return [run.id for run in runs]


def count(connection: Connection) -> int:
    row = connection.execute("select count(*) from task_runs").fetchone()
    assert row is not None
    return int(row[0])


def test_an_empty_list_sends_no_statement(connection: Connection, sent: list[str]) -> None:
    assert enqueue_many(connection, []) == []
    assert sent == []


def test_each_of_many_runs_has_the_values_it_was_given(connection: Connection, way: str) -> None:
    moment = datetime(2031, 5, 17, 8, 30, 1, 250, tzinfo=UTC)
    new_runs = [
        NewRun.of(
            payload,
            queue_name=f"mail {place} é'\"\\",
            priority=place - 2,
            run_after=(None, moment, timedelta(seconds=90.5))[place % 3],
            max_attempts=place + 1,
            timeout_seconds=(None, 0, 0.1)[place % 3],
            executor=(None, "fork", "inline")[place % 3],
            atomic=place % 2 == 1,
            retry_base_seconds=(None, 2.5)[place % 2],
            retry_max_seconds=(None, 60)[place % 2],
        )
        for place, payload in enumerate(HOSTILE)
    ]
    runs = enqueue_many(connection, new_runs)
    assert ids(runs) == sorted(ids(runs))
    assert all(run.created for run in runs)
    for run, new in zip(runs, new_runs, strict=True):
        assert run == get_run(connection, run.id)
        alone = enqueue(
            connection,
            new.spec,
            queue_name=new.queue_name,
            priority=new.priority,
            run_after=timedelta(seconds=new.delay_s) if new.delay_s is not None else new.run_after,
            max_attempts=new.max_attempts,
            timeout_seconds=new.timeout_s,
            executor=new.executor,
            atomic=new.atomic,
            retry_base_seconds=new.retry_base_s,
            retry_max_seconds=new.retry_max_s,
        )
        assert as_said(run) == as_said(alone)


def as_said(run: TaskRun) -> tuple[Any, ...]:
    """All that a caller decides; the delay as what is left of it when it was enqueued."""
    delay = None if run.run_after is None or run.run_after.year == 2031 else run.run_after - run.enqueued_at
    return (
        repr(run.payload),
        run.spec_hash,
        run.task_path,
        run.queue_name,
        run.priority,
        run.run_after if delay is None else delay,
        run.status,
        run.max_attempts,
        run.timeout_seconds,
        run.executor,
        run.atomic,
        run.retry_base_seconds,
        run.retry_max_seconds,
        run.errors,
    )


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def module_connection(template_url: str, server: Any) -> Iterator[Connection]:
    from tests.support.postgres.databases import new_database

    with (
        new_database(server.url, template_url) as url,
        psycopg.connect(url, autocommit=True) as connection,
    ):
        yield connection


@given(st.lists(JSON, min_size=2, max_size=4), st.booleans())
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_payload_arrives_as_the_same_document(
    module_connection: Connection, payloads: list[Any], by_copy: bool
) -> None:
    """The table holds the same document as after one INSERT of the canonical text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "COPY_FROM", 1 if by_copy else 10**9)
        runs = enqueue_many(module_connection, [NewRun.of(payload) for payload in payloads])
    for run, payload in zip(runs, payloads, strict=True):
        row = module_connection.execute(
            "select payload::text = %s::jsonb::text from task_runs where id = %s",
            [Spec.of(payload).canonical, run.id],
        ).fetchone()
        assert row == (True,)
        assert Spec.of(run.payload).hash == run.spec_hash == Spec.of(payload).hash


def test_a_held_key_returns_its_run_and_a_repeated_key_the_first_run(connection: Connection) -> None:
    held = enqueue(connection, "held", unique_key="held")
    new_runs = [
        NewRun.of(0),
        NewRun.of(1, unique_key="held"),
        NewRun.of(2, unique_key="new"),
        NewRun.of(3),
        NewRun.of(4, unique_key="new"),
        NewRun.of(5, unique_key="other"),
        NewRun.of(6, unique_key="held"),
    ]
    runs = enqueue_many(connection, new_runs)
    assert [run.payload for run in runs] == [0, "held", 2, 3, 2, 5, "held"]
    assert [run.created for run in runs] == [True, False, True, True, False, True, False]
    assert runs[1] == runs[6] == held
    assert count(connection) == 5
    fresh = [run.id for run in runs if run.created]
    assert fresh == sorted(fresh)


def test_a_key_in_two_batches_is_one_run(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BATCH_RUNS", 2)
    runs = enqueue_many(connection, [NewRun.of(place, unique_key="k") for place in range(5)])
    assert [run.created for run in runs] == [True, False, False, False, False]
    assert count(connection) == 1


def test_an_insert_is_tried_again_if_the_holder_of_the_key_finishes(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue(connection, "held", unique_key="k")
    worker = psycopg.connect(database_url, autocommit=True)
    fetch, names = PsycopgSender.fetch, []

    def finish_first(sender: PsycopgSender, name: str, parameters: Any) -> Sequence[Any]:
        names.append(name)
        if name == "runs_that_hold_keys":
            worker.execute("update task_runs set status = 'SUCCESSFUL' where unique_key = 'k'")
        return fetch(sender, name, parameters)

    monkeypatch.setattr(PsycopgSender, "fetch", finish_first)
    runs = enqueue_many(connection, [NewRun.of(0), NewRun.of(1, unique_key="k"), NewRun.of(2)])
    assert [run.payload for run in runs] == [0, 1, 2]
    assert all(run.created for run in runs)
    assert names == ["enqueue_runs", "runs_that_hold_keys", "enqueue_runs"]
    assert count(connection) == 4
    worker.close()


def test_inserted_rows_are_rolled_back_before_a_smaller_key_is_tried_again(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise this caller holds `b` and waits for `a`, and a caller that holds `a` waits for `b`."""
    enqueue(connection, "held", unique_key="a")
    fetch, names = PsycopgSender.fetch, []

    def meddle(sender: PsycopgSender, name: str, parameters: Any) -> Sequence[Any]:
        names.append(name)
        if names == ["enqueue_runs", "runs_that_hold_keys"]:
            other.execute("update task_runs set status = 'SUCCESSFUL' where unique_key = 'a'")
        elif names == ["enqueue_runs", "runs_that_hold_keys", "enqueue_runs"]:
            assert enqueue(other, "other", unique_key="b").created, "without waiting"
        return fetch(sender, name, parameters)

    with psycopg.connect(database_url, autocommit=True) as other:
        other.execute("set lock_timeout = '2s'")
        monkeypatch.setattr(PsycopgSender, "fetch", meddle)
        runs = enqueue_many(connection, [NewRun.of(key, unique_key=key) for key in ("b", "a")])
    assert [(run.payload, run.created) for run in runs] == [("other", False), ("a", True)]


def test_a_key_that_changes_hands_without_end_leaves_no_rows(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue(connection, "held", unique_key="k")
    fetch = PsycopgSender.fetch

    def hide(sender: PsycopgSender, name: str, parameters: Any) -> Sequence[Any]:
        return () if name == "runs_that_hold_keys" else fetch(sender, name, parameters)

    monkeypatch.setattr(PsycopgSender, "fetch", hide)
    with pytest.raises(KeyChangesHands):
        enqueue_many(connection, [NewRun.of(0), NewRun.of(1, unique_key="k")])
    assert count(connection) == 1


def test_all_or_none_are_added(connection: Connection, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    connection.execute("alter table task_runs add constraint no_nines check (payload <> '9')")
    with pytest.raises(psycopg.errors.CheckViolation):
        enqueue_many(connection, [NewRun.of(number) for number in range(10)])
    assert count(connection) == 0


def test_many_runs_are_inserted_in_the_transaction_of_the_caller(
    database_url: str, connection: Connection, way: str
) -> None:
    with psycopg.connect(database_url, row_factory=dict_row) as caller:
        enqueue_many(caller, [NewRun.of(number) for number in range(5)])
        assert count(connection) == 0
        assert caller.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        caller.rollback()
        assert count(connection) == 0
        enqueue_many(caller, [NewRun.of(number) for number in range(5)])
        caller.commit()
    assert count(connection) == 5


def test_new_runs_are_notified_once_for_each_queue(
    connection: Connection, database_url: str, way: str
) -> None:
    with psycopg.connect(database_url, autocommit=True) as listener:
        listener.execute("listen reproq_task_runs")
        listener.execute(statement("await_new_runs"), {"queues": "mail,news"})
        names = ["mail", "news", "mail", "mail"]
        enqueue_many(connection, [NewRun.of(1, queue_name=name) for name in names])
        heard = [message.payload for message in listener.notifies(timeout=10, stop_after=2)]
    assert sorted(heard) == ["mail", "news"]


def test_a_large_number_goes_by_copy_and_one_with_a_key_does_not(
    connection: Connection, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "COPY_FROM", 3)
    enqueue_many(connection, [NewRun.of(number) for number in range(3)])
    assert sent == ["enqueue_runs"]
    sent.clear()
    enqueue_many(connection, [NewRun.of(number) for number in range(4)])
    assert sent == ["reserve_run_ids"]
    sent.clear()
    enqueue_many(connection, [NewRun.of(number, unique_key=str(number)) for number in range(4)])
    assert sent == ["enqueue_runs"]


def test_a_large_payload_does_not_make_a_statement_without_bound(
    connection: Connection, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "BATCH_BYTES", 1000)
    runs = enqueue_many(connection, [NewRun.of("x" * 600) for _ in range(5)])
    assert sent == ["enqueue_runs"] * 3
    assert ids(runs) == sorted(ids(runs))


def test_a_role_that_may_only_insert_and_read_needs_no_more(
    connection: Connection, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "COPY_FROM", 1)
    name = f"producer_{connection.info.backend_pid}"
    connection.execute(f"create role {name}")
    try:
        connection.execute(f"grant select, insert on task_runs to {name}")
        connection.execute(f"set role {name}")
        assert len(enqueue_many(connection, [NewRun.of(1), NewRun.of(2)])) == 2
        assert sent == ["reserve_run_ids", "enqueue_runs"]
    finally:
        connection.execute("reset role")
        connection.execute(f"drop owned by {name}")
        connection.execute(f"drop role {name}")


def test_inside_a_pipeline_no_copy_is_used(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "COPY_FROM", 1)
    with connection.pipeline():
        assert [run.payload for run in enqueue_many(connection, [NewRun.of(1), NewRun.of(2)])] == [1, 2]


def test_runs_added_by_a_copy_can_be_read_in_any_order(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "COPY_FROM", 1)
    new_runs = [NewRun.of(number, timeout_seconds=0.1) for number in range(4)]
    runs = enqueue_many(connection, new_runs)
    new_runs.clear()
    stored = [get_run(connection, run_id) for run_id in ids(runs)]
    assert [runs[-1], *runs[:3]] == [stored[3], *stored[:3]]
    assert list(reversed(runs)) == stored[::-1]
    assert stored[2] in runs
    assert repr(runs) == f"<4 runs, {stored[0].id} to {stored[3].id}>"
    with pytest.raises(IndexError):
        runs[4]


def test_callers_who_add_the_same_keys_at_once_add_each_once(
    database_url: str, connection: Connection
) -> None:
    """All callers use one order of keys, so no two wait for each other."""
    callers, rounds = 4, 10
    barrier = threading.Barrier(callers, timeout=30)
    seen: list[Sequence[TaskRun]] = []
    failures: list[BaseException] = []

    def call() -> None:
        try:
            with psycopg.connect(database_url, autocommit=True) as caller:
                for this_round in range(rounds):
                    keys = [f"{this_round}:{number}" for number in range(30)]
                    barrier.wait()
                    seen.append(enqueue_many(caller, [NewRun.of(key, unique_key=key) for key in keys]))
        except BaseException as error:
            barrier.abort()
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert not failures
    assert all(len(runs) == 30 for runs in seen)
    created = [run.id for runs in seen for run in runs if run.created]
    assert len(created) == len(set(created)) == count(connection) == rounds * 30


def test_ten_thousand_runs_are_returned_in_order(connection: Connection, sent: list[str]) -> None:
    runs = enqueue_many(connection, [NewRun.of({"n": number}) for number in range(10_000)])
    assert [run.payload["n"] for run in runs] == list(range(10_000))
    assert ids(runs) == sorted(ids(runs))
    assert {run.status for run in runs} == {Status.PENDING}
    assert sent == ["reserve_run_ids"]
