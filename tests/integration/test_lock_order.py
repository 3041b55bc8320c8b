"""Unique keys are inserted, and runs locked, in one order, so that no two sessions wait for each other."""

from __future__ import annotations

import multiprocessing
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.synchronize import Barrier, Event
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork import NewRun, enqueue_many, get_run
from reproq_prefork.model.run import Status
from reproq_prefork.model.settlement import Settlement
from reproq_prefork.store import bulk
from tests.support.rows.stores import lost_worker, steward_store, worker_store
from tests.support.supervisor.supervisor import Connection, add_run
from tests.support.waiting import wait_until

PRODUCERS, CALLS, KEYS = 4, 7, 400
TIMEOUT_S = 120


# --- unique keys ---


def produce(url: str, number: int, barrier: Barrier, found: Any, batch_runs: int) -> None:
    """A process that adds the same keys as the others in an order of its own, each time at the same moment."""
    bulk.BATCH_RUNS = batch_runs
    draw = random.Random(number)
    with psycopg.connect(url, autocommit=True) as connection:
        for call in range(CALLS):
            keys = [f"{call}:{key}" for key in range(KEYS)]
            if number == 0:
                keys.reverse()
            elif number > 1:
                draw.shuffle(keys)
            new_runs = [NewRun.of({"key": key}, unique_key=key) for key in keys]
            barrier.wait(TIMEOUT_S)
            try:
                runs = enqueue_many(connection, new_runs)
            except psycopg.Error as error:
                found.put(type(error).__name__)
                continue
            assert [run.unique_key for run in runs] == keys, "they come back in the order of the list"
            found.put([run.id for run in runs if run.created])


def finish(url: str, stop: Event) -> None:
    """A process that finishes runs at random, so that keys are given back in the middle of a call."""
    draw = random.Random(7)
    with psycopg.connect(url, autocommit=True) as connection:
        while not stop.is_set():
            connection.execute(
                "update task_runs set status = 'SUCCESSFUL' where id in ("
                " select id from task_runs where status = 'PENDING' and mod(id, 50) = %s"
                " limit 20 for update skip locked)",
                [draw.randrange(50)],
            )


@pytest.mark.parametrize(
    ("batch_runs", "keys_are_given_back"),
    [(5_000, False), (50, False), (5_000, True)],
    ids=["one insert", "many inserts", "runs with keys finish"],
)
def test_producers_who_add_equal_keys_in_any_order_meet_no_deadlock(
    database_url: str, connection: Connection, batch_runs: int, keys_are_given_back: bool
) -> None:
    processes = multiprocessing.get_context("spawn")
    barrier, stop, found = processes.Barrier(PRODUCERS), processes.Event(), processes.Queue()
    crowd: list[Any] = [
        processes.Process(target=produce, args=(database_url, number, barrier, found, batch_runs))
        for number in range(PRODUCERS)
    ]
    if keys_are_given_back:
        crowd.append(processes.Process(target=finish, args=(database_url, stop)))
    for process in crowd:
        process.start()
    try:
        outcomes = [found.get(timeout=TIMEOUT_S) for _ in range(PRODUCERS * CALLS)]
    finally:
        stop.set()
        for process in crowd:
            process.join(TIMEOUT_S)
    assert [outcome for outcome in outcomes if isinstance(outcome, str)] == []
    assert [process.exitcode for process in crowd] == [0] * len(crowd)
    created = [run_id for outcome in outcomes for run_id in outcome]
    assert len(created) == len(set(created))
    row = connection.execute("select count(*), count(distinct unique_key) from task_runs").fetchone()
    assert row is not None
    assert row[0] == len(created)
    assert row[1] == CALLS * KEYS
    if not keys_are_given_back:
        assert row[0] == row[1]


@given(st.lists(st.none() | st.sampled_from("abcdefgh") | st.text(max_size=2), max_size=30))
def test_only_runs_with_keys_are_reordered_and_only_among_themselves(keys: list[str | None]) -> None:
    keys = [None if key == "" else key for key in keys]
    new_runs = [bulk_run(key) for key in keys]
    places, first_of = bulk._in_order_of_keys(new_runs)
    firsts = [place for place, key in enumerate(keys) if key is None or keys.index(key) == place]
    assert sorted(places) == firsts, "each key once, at its first place"
    inserted = [keys[place] for place in places]
    assert [key for key in inserted if key is not None] == sorted({key for key in keys if key is not None})
    for slot, place in zip(firsts, places, strict=True):
        if keys[slot] is None:
            assert place == slot
    assert all(keys[place] == key for key, place in first_of.items())


def bulk_run(key: str | None) -> Any:
    class Run:
        unique_key = key

    return Run


def test_ids_follow_the_list_except_for_runs_with_unordered_keys(connection: Connection) -> None:
    keys = [None, "c", None, "a", "b", None, "c", None]
    runs = enqueue_many(connection, [NewRun.of(place, unique_key=key) for place, key in enumerate(keys)])
    assert [run.unique_key for run in runs] == keys
    assert [run.payload for run in runs] == [0, 1, 2, 3, 4, 5, 1, 7]
    assert [run.created for run in runs] == [True] * 6 + [False, True]
    ids = [run.id for run in runs]
    first = ids[0]
    assert [run_id - first for run_id in ids] == [0, 4, 2, 1, 3, 5, 4, 6]
    for run in runs:
        assert run.created == (run == get_run(connection, run.id) and run is not runs[6])


def test_keys_are_ordered_by_code_points_whatever_the_collation(
    database_url: str, connection: Connection
) -> None:
    """Producers in other languages can use the same order without asking the database."""
    keys = ["ä", "Z", "a", "10", "9", "\U0001f600", "\ue000", "z"]
    runs = enqueue_many(connection, [NewRun.of(0, unique_key=key) for key in keys])
    by_id = [run.unique_key for run in sorted(runs, key=lambda run: run.id)]
    assert by_id == ["10", "9", "Z", "a", "z", "ä", "\ue000", "\U0001f600"]
    stored = connection.execute('select unique_key from task_runs order by unique_key collate "C"').fetchall()
    assert [key for (key,) in stored] == by_id


# --- runs ---


@contextmanager
def locked(url: str, *run_ids: int) -> Iterator[None]:
    with psycopg.connect(url) as other:
        other.execute("select from task_runs where id = any (%s) for update", [list(run_ids)])
        yield
        other.rollback()


def free(connection: Connection) -> set[int]:
    """The runs that nobody has locked."""
    rows = connection.execute("select id from task_runs for update skip locked").fetchall()
    return {run_id for (run_id,) in rows}


def wait_for_a_waiter(connection: Connection) -> None:
    wait_until(
        lambda: connection.execute(
            "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
        ).fetchall(),
        10,
        "somebody to wait for a lock",
    )


def three_held_runs(url: str, connection: Connection, *, last: int) -> tuple[list[int], list[Any]]:
    """Held by the worker `w`, claimed together. The one at `last` is the last in the table and in each index."""
    ids = [add_run(connection, {}) for _ in range(3)]
    with closing(worker_store(url)) as store:
        runs = list(store.finish_and_claim([], max_runs=3).runs)
    # An index has a column of these, so the new version of the row has entries of its own.
    connection.execute("update task_runs set unique_key = 'moved' where id = %s", [ids[last]])
    return ids, runs


def in_a_thread(act: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_reset_locks_runs_in_the_order_of_their_ids(database_url: str, connection: Connection) -> None:
    ids, _ = three_held_runs(database_url, connection, last=0)
    with closing(steward_store(database_url)) as steward:
        with locked(database_url, ids[0]):
            thread = in_a_thread(lambda: steward.reset_worker(lost_worker()))
            wait_for_a_waiter(connection)
            assert free(connection) == set(ids[1:])
        thread.join(20)


def test_waiting_runs_are_handed_back_in_the_order_of_their_ids(
    database_url: str, connection: Connection
) -> None:
    ids, runs = three_held_runs(database_url, connection, last=1)
    with closing(steward_store(database_url)) as steward:
        with locked(database_url, ids[1]):
            thread = in_a_thread(lambda: steward.hand_back_waiting("w", *runs[0].token))
            wait_for_a_waiter(connection)
            assert free(connection) == {ids[0], ids[2]}
        thread.join(20)


def test_ends_are_recorded_in_the_order_of_ids_before_any_other_run_is_locked(
    database_url: str, connection: Connection
) -> None:
    """While a worker waits for one of its own runs, it does not lock waiting runs."""
    ids, runs = three_held_runs(database_url, connection, last=0)
    pending = [add_run(connection, {}) for _ in range(3)]
    ends = [Settlement(run.id, run.claim, Status.SUCCESSFUL, result="1") for run in reversed(runs)]
    taken: list[Any] = []
    with closing(worker_store(database_url, "w2")) as store:
        with locked(database_url, ids[0]):
            thread = in_a_thread(lambda: taken.append(store.finish_and_claim(ends, max_runs=8)))
            wait_for_a_waiter(connection)
            assert free(connection) == {*ids[1:], *pending}
        thread.join(20)
    (claim,) = taken
    assert (claim.settled, [run.id for run in claim.runs]) == (3, pending)
