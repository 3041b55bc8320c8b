"""Runs that are claimed together: what the statement takes, and what real workers make of it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from reproq_prefork import cancel
from reproq_prefork.model.run import Place, Status
from reproq_prefork.model.settlement import Settlement
from reproq_prefork.store.worker_store import WorkerStore
from tests.support.rows.stores import lost_worker, steward_store, worker_store
from tests.support.supervisor.supervisor import Connection, Supervisor, add_run, run_row, wait_for_status
from tests.support.waiting import wait_until

TASKS = """
import os, signal, time
from pathlib import Path
from reproq_prefork import task

@task
def note(directory, name):
    with (Path(directory) / "diary").open("a") as diary:
        diary.write(f"{name} {os.getpid()}\\\\n")

@task
def sleep(directory, seconds):
    time.sleep(seconds)

@task
def sleep_deaf(directory, seconds):
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(seconds)

@task
def crash(directory):
    os.kill(os.getpid(), signal.SIGKILL)

@task
def unstorable(directory):
    return "no NUL \\\\0 in PostgreSQL"

@task
def fail(directory):
    raise LookupError("as it should")
""".replace("\\\\", "\\")


# --- the statement ---


def ids(store: WorkerStore, max_runs: int, **options: Any) -> list[int]:
    return [run.id for run in store.finish_and_claim((), max_runs=max_runs, **options).runs]


def test_a_batch_is_the_first_runs_in_claim_order(database_url: str, connection: Connection) -> None:
    last, first, second = (add_run(connection, {"n": n}, priority=p) for n, p in ((1, 0), (2, 5), (3, 5)))
    store = worker_store(database_url)
    claim = store.finish_and_claim((), max_runs=2)
    assert [run.id for run in claim.runs] == [first, second]
    assert claim.found == 2
    claim = store.finish_and_claim((), max_runs=2)
    assert [run.id for run in claim.runs] == [last]
    assert claim.found == 1
    store.close()


ALONE = [{"max_attempts": 1}, {"attempts": 1}, {"atomic": True}]


@pytest.mark.parametrize("columns", ALONE, ids=["one attempt", "an attempt already made", "atomic"])
def test_runs_that_should_not_be_interrupted_are_claimed_alone_and_in_order(
    database_url: str, connection: Connection, columns: dict[str, Any]
) -> None:
    before = [add_run(connection, {"n": n}) for n in range(2)]
    alone = [add_run(connection, {"n": n}, **columns) for n in range(2)]
    after = [add_run(connection, {"n": n}) for n in range(3)]
    store = worker_store(database_url)
    claims = [store.finish_and_claim((), max_runs=10) for _ in range(5)]
    taken = [[run.id for run in claim.runs] for claim in claims]
    assert taken == [before, alone[:1], alone[1:], after, []]
    assert [claim.found for claim in claims] == [7, 5, 4, 3, 0]
    store.close()


def test_a_batch_of_payloads_is_bounded(database_url: str, connection: Connection) -> None:
    large = [add_run(connection, {"random": os.urandom(200_000).hex()}) for _ in range(4)]
    store = worker_store(database_url)
    assert ids(store, 10) == large[:2]
    assert ids(store, 10) == large[2:]
    store.close()


def test_a_payload_of_the_largest_size_is_claimed_alone(database_url: str, connection: Connection) -> None:
    first, second = (add_run(connection, {"x": os.urandom(500_000).hex()}) for _ in range(2))
    store = worker_store(database_url)
    assert ids(store, 10) == [first]
    assert ids(store, 10) == [second]
    store.close()


def test_a_claim_from_a_position_skips_only_earlier_runs_of_its_priority(
    database_url: str, connection: Connection
) -> None:
    runs = [add_run(connection, {"n": n}, enqueued_at=f"2026-01-01 00:00:0{n}+00") for n in range(3)]
    low = add_run(connection, {"n": 9}, priority=-1, enqueued_at="2025-01-01 00:00:00+00")
    high = add_run(connection, {"n": 9}, priority=1)
    mail = add_run(connection, {"n": 9}, queue_name="mail", enqueued_at="2025-01-01 00:00:00+00")
    store = worker_store(database_url, queues=("default", "mail"))
    (first, second, *_), place = runs, run_row(connection, runs[0])["enqueued_at"].isoformat()
    assert first < second
    assert ids(store, 10, places={"default": Place(0, place, first)}) == [high, mail, *runs[1:], low]
    assert ids(store, 10) == [first]
    store.close()


def test_a_claim_from_a_position_keeps_the_order_of_priorities(
    database_url: str, connection: Connection
) -> None:
    runs = {p: add_run(connection, {"p": p}, priority=p) for p in (-100, -1, 0, 1, 2, 100)}
    behind = add_run(connection, {"n": 1})
    store = worker_store(database_url)
    place = {"default": Place(0, run_row(connection, runs[0])["enqueued_at"].isoformat(), runs[0])}
    taken = [ids(store, 2, places=place) for _ in range(4)]
    assert taken == [[runs[100], runs[2]], [runs[1], behind], [runs[-1], runs[-100]], []]
    assert ids(store, 2) == [runs[0]]
    store.close()


def test_a_position_distinguishes_runs_that_are_due_at_the_same_moment(
    database_url: str, connection: Connection
) -> None:
    runs = [add_run(connection, {"n": n}, enqueued_at="2026-01-01 00:00:00.123456+00") for n in range(4)]
    store = worker_store(database_url)
    place = Place(0, run_row(connection, runs[0])["enqueued_at"].isoformat(), runs[1])
    assert ids(store, 10, places={"default": place}) == runs[2:]
    store.close()


def test_the_ends_of_a_batch_are_recorded_separately(database_url: str, connection: Connection) -> None:
    runs = [add_run(connection, {"n": n}) for n in range(5)]
    store = worker_store(database_url)
    (done, failed, again, back, stale) = store.finish_and_claim((), max_runs=5).runs
    claim = store.finish_and_claim(
        [
            Settlement(
                done.id, done.claim, Status.SUCCESSFUL, result='{"a": "\\""}', last_attempt='{"exit": "x"}'
            ),
            Settlement(failed.id, failed.claim, Status.FAILED, error={"kind": "failed", "message": "no"}),
            Settlement(again.id, again.claim, Status.PENDING, error={"kind": "failed"}, delay_s=3600.0),
            Settlement(back.id, back.claim, Status.PENDING, refunded=True),
            Settlement(stale.id, stale.claim - 1, Status.SUCCESSFUL, result="1"),
        ],
        max_runs=0,
    )
    assert claim.settled == 4
    rows = [run_row(connection, run_id) for run_id in runs]
    assert [row["status"] for row in rows] == ["SUCCESSFUL", "FAILED", "PENDING", "PENDING", "RUNNING"]
    assert [row["attempts"] for row in rows] == [1, 1, 1, 0, 1]
    assert [len(row["worker_ids"]) for row in rows] == [1, 1, 1, 0, 1]
    assert [len(row["errors"]) for row in rows] == [0, 1, 1, 0, 0]
    assert rows[0]["result"] == {"a": '"'}
    assert rows[0]["last_attempt"] == {"exit": "x"}
    assert rows[1]["errors"][0]["worker"] == "w"
    assert rows[2]["run_after"] is not None
    assert (rows[3]["started_at"], rows[3]["run_after"]) == (None, None)
    store.close()


# --- what waits behind a run that takes long, and a worker that died with a batch ---


def test_a_steward_hands_back_runs_behind_a_running_one_and_leaves_ended_ones(
    database_url: str, connection: Connection
) -> None:
    first, second, third, fourth = (add_run(connection, {"n": n}) for n in range(4))
    other = add_run(connection, {"n": 9}, priority=-1)
    worker, steward = worker_store(database_url), steward_store(database_url)
    runs = worker.finish_and_claim((), max_runs=4).runs
    assert ids(worker, 1) == [other], "a later claim is no part of the batch"
    cancel(connection, fourth)
    reset = steward.hand_back_waiting("w", second, runs[1].claim)
    assert sorted((run.id, run.status.value, run.charged) for run in reset) == [
        (third, "PENDING", False),
        (fourth, "CANCELLED", False),
    ]
    rows = {run_id: run_row(connection, run_id) for run_id in (first, second, third, other)}
    assert {run_id: row["status"] for run_id, row in rows.items()} == {
        first: "RUNNING",
        second: "RUNNING",
        third: "PENDING",
        other: "RUNNING",
    }
    assert (rows[third]["attempts"], rows[third]["worker_ids"], rows[third]["started_at"]) == (0, [], None)
    # The worker itself comes too late with the same, and changes nothing.
    assert (
        worker.finish_and_claim([Settlement(third, runs[2].claim, Status.PENDING)], max_runs=0).settled == 0
    )
    worker.close()
    steward.close()


def test_a_steward_hands_back_no_run_of_a_batch_whose_running_run_has_ended(
    database_url: str, connection: Connection
) -> None:
    first, second = (add_run(connection, {"n": n}) for n in range(2))
    worker, steward = worker_store(database_url), steward_store(database_url)
    runs = worker.finish_and_claim((), max_runs=2).runs
    worker.finish_and_claim([Settlement(first, runs[0].claim, Status.SUCCESSFUL, result="1")], max_runs=0)
    assert steward.hand_back_waiting("w", first, runs[0].claim) == ()
    assert steward.hand_back_waiting("w", second, runs[1].claim - 1) == ()
    assert run_row(connection, second)["status"] == "RUNNING"
    worker.close()
    steward.close()


def test_of_a_dead_workers_batch_only_the_run_that_it_had_started_is_charged(
    database_url: str, connection: Connection
) -> None:
    runs = [add_run(connection, {"n": n}) for n in range(4)]
    worker, steward = worker_store(database_url), steward_store(database_url)
    claimed = worker.finish_and_claim((), max_runs=4).runs
    steward.reset_worker(lost_worker(started=(runs[2], claimed[2].claim)))
    assert [run_row(connection, run_id)["attempts"] for run_id in runs] == [0, 0, 1, 0]
    assert {run_row(connection, run_id)["status"] for run_id in runs} == {"PENDING"}
    worker.close()
    steward.close()


# --- real workers ---


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "application"
    directory.mkdir()
    (directory / "batch_tasks.py").write_text(TASKS)
    return directory


def inline_workers(database_url: str, directory: Path, *, workers: int = 1, **environ: str) -> Supervisor:
    return Supervisor(
        database_url,
        directory,
        workers=workers,
        environ={
            "EXECUTOR_COMMAND": "",
            "ALLOWED_TASK_MODULES": "batch_tasks",
            "REPROQ_EXECUTOR": "inline",
            "PYTHONDONTWRITEBYTECODE": "1",
            **environ,
        },
    )


def enqueue(connection: Connection, name: str, directory: Path, *args: Any, **columns: Any) -> int:
    call = {"v": 1, "task": f"batch_tasks.{name}", "args": [str(directory), *args], "kwargs": {}}
    return add_run(connection, call, **columns)


def enqueue_notes(connection: Connection, directory: Path, count: int, *, first: int = 0) -> None:
    connection.execute(
        "insert into task_runs (payload, spec_hash) select jsonb_build_object('v', 1, 'task', 'batch_tasks.note',"
        " 'kwargs', '{}'::jsonb, 'args', jsonb_build_array(%s::text, n)), repeat('0', 64)"
        " from generate_series(%s::integer, %s) as n",
        [str(directory), first, first + count - 1],
    )


def noted(directory: Path) -> list[int]:
    diary = directory / "diary"
    return [int(line.split()[0]) for line in diary.read_text().splitlines()] if diary.exists() else []


def counts(connection: Connection) -> dict[str, int]:
    return dict(connection.execute("select status, count(*) from task_runs group by 1").fetchall())


def test_two_workers_run_thousands_of_short_runs_once_each_with_few_commits(
    database_url: str, connection: Connection, directory: Path
) -> None:
    enqueue_notes(connection, directory, 4_000)
    with inline_workers(database_url, directory, workers=2) as supervisor:
        wait_until(lambda: counts(connection) == {"SUCCESSFUL": 4_000}, 60, "all runs to succeed")
        assert supervisor.stop() == 0
    assert sorted(noted(directory)) == list(range(4_000))
    commits = connection.execute("select count(distinct xmin::text) from task_runs").fetchone()
    assert commits is not None
    assert commits[0] < 1_000
    row = connection.execute("select count(*) from task_runs where attempts <> 1 or claims <> 1").fetchone()
    assert row == (0,)


@pytest.mark.parametrize("slow", ["sleep", "sleep_deaf"])
def test_no_run_waits_behind_a_slow_run_of_another_worker(
    database_url: str, connection: Connection, directory: Path, slow: str
) -> None:
    """Whoever claims the slow one claims others with it: the other worker runs them while it is at it.

    What has ended before the slow one is recorded in the middle of that, unless it hears nothing.
    """
    enqueue_notes(connection, directory, 500)
    slow_run = enqueue(connection, slow, directory, 30)
    enqueue_notes(connection, directory, 500, first=500)
    with inline_workers(database_url, directory, workers=2) as supervisor:
        wait_until(lambda: len(noted(directory)) >= 1_000, 20, "all short runs to be run")
        if slow == "sleep":
            wait_until(lambda: counts(connection).get("SUCCESSFUL") == 1_000, 20, "them to be recorded")
        assert run_row(connection, slow_run)["status"] == "RUNNING"
        assert sorted(noted(directory)) == list(range(1_000)), "each once"
        assert supervisor.stop(signal.SIGQUIT) == 0
    assert run_row(connection, slow_run)["attempts"] == 0


def test_a_run_that_kills_its_worker_is_charged_and_its_batch_is_not(
    database_url: str, connection: Connection, directory: Path
) -> None:
    enqueue_notes(connection, directory, 300)
    poison = enqueue(connection, "crash", directory, max_attempts=2)
    enqueue_notes(connection, directory, 300, first=300)
    with inline_workers(database_url, directory) as supervisor:
        row = wait_for_status(connection, poison, "FAILED")
        wait_until(lambda: counts(connection).get("SUCCESSFUL") == 600, 30, "all others to succeed")
        assert supervisor.stop() == 0
    assert [error["kind"] for error in row["errors"]] == ["worker_lost"] * 2
    times = Counter(noted(directory))
    assert set(times) == set(range(600))
    # What had ended and was not recorded when the worker died was run again: it is in no other way different.
    assert max(times.values()) <= 3
    assert connection.execute(
        "select count(*) from task_runs where attempts <> 1 and id <> %s", [poison]
    ).fetchone() == (0,)


def test_a_failure_or_an_unstorable_result_does_not_affect_the_rest_of_its_batch(
    database_url: str, connection: Connection, directory: Path
) -> None:
    enqueue_notes(connection, directory, 200)
    odd = [enqueue(connection, name, directory, max_attempts=2) for name in ("unstorable", "fail")]
    enqueue_notes(connection, directory, 200, first=200)
    with inline_workers(database_url, directory) as supervisor:
        wait_until(lambda: counts(connection) == {"SUCCESSFUL": 400, "FAILED": 2}, 20, "all to end")
        assert supervisor.stop() == 0
    assert sorted(noted(directory)) == list(range(400))
    kinds = [[error["kind"] for error in run_row(connection, run_id)["errors"]] for run_id in odd]
    assert kinds == [["unusable_output"], ["failed"] * 2]


def test_a_higher_priority_is_seen_in_the_middle_of_a_long_drain(
    database_url: str, connection: Connection, directory: Path
) -> None:
    enqueue_notes(connection, directory, 20_000)
    with inline_workers(database_url, directory) as supervisor:
        wait_until(lambda: len(noted(directory)) > 1_000, 20, "the drain to be under way")
        enqueue(connection, "note", directory, -1, priority=10)
        wait_until(lambda: -1 in noted(directory), 20, "the urgent run to be run")
        assert len(noted(directory)) < 20_000
        assert supervisor.stop() == 0


def test_term_in_a_drain_hands_back_what_was_claimed_and_charges_nothing(
    database_url: str, connection: Connection, directory: Path
) -> None:
    enqueue_notes(connection, directory, 30_000)
    with inline_workers(database_url, directory, workers=2) as supervisor:
        wait_until(lambda: len(noted(directory)) > 1_000, 20, "the drain to be under way")
        assert supervisor.stop() == 0
    ended = counts(connection)
    assert ended.keys() == {"SUCCESSFUL", "PENDING"}
    assert ended["SUCCESSFUL"] == len(noted(directory)) == len(set(noted(directory)))
    row = connection.execute(
        "select count(*) from task_runs where status = 'PENDING' and attempts > 0"
    ).fetchone()
    assert row == (0,)


def killed_one_of(supervisor: Supervisor) -> bool:
    for pid in supervisor.booted_worker_pids():
        with contextlib.suppress(ProcessLookupError):  # it is the one that was killed just before
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def test_workers_that_are_killed_in_a_drain_lose_nothing(
    database_url: str, connection: Connection, directory: Path
) -> None:
    enqueue_notes(connection, directory, 10_000)
    with inline_workers(database_url, directory, workers=2) as supervisor:
        for kills in range(1, 11):
            wait_until(lambda: len(noted(directory)) > 500 * kills, 30, "the drain to go on")  # noqa: B023
            wait_until(lambda: killed_one_of(supervisor), 10, "a worker to kill")
        wait_until(lambda: counts(connection) == {"SUCCESSFUL": 10_000}, 60, "all runs to succeed")
        assert supervisor.stop() == 0
    assert set(noted(directory)) == set(range(10_000))
