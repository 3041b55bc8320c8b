"""`Snooze`: a task that has nothing to do yet is due again later, and nothing of that attempt is counted."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from reproq_prefork.model.run import Status
from reproq_prefork.model.settlement import Settlement, handed_back
from tests.support.rows.stores import worker_store
from tests.support.supervisor.command_line import CommandLine
from tests.support.supervisor.shop import Shop
from tests.support.supervisor.supervisor import Connection, Supervisor, add_run, run_row, wait_for_status
from tests.support.waiting import wait_until

TASKS = """
import asyncio
from reproq_prefork import Discard
from reproq_prefork import Snooze
from reproq_prefork import TaskCancelled
from reproq_prefork import TaskInterrupted

@task(max_attempts=1, takes_context=True)
def poll(context, path):
    if not Path(path).exists():
        raise Snooze(f"no file at claim {context.claim}", after=0.02)
    return [context.attempt, context.claim]

@task(takes_context=True)
def snooze_once(context, after):
    if context.claim == 1:
        raise Snooze(after=after)
    return context.claim

@task(takes_context=True, retry_base=0)
def fail_then_snooze(context):
    if context.attempt == 1:
        raise LookupError("the first time")
    raise Snooze(after=3600)

@task
async def snooze_in_a_group():
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(60))
        group.create_task(snooze())

async def snooze():
    await asyncio.sleep(0)
    raise Snooze(after=3600)

@task(max_attempts=1)
def snooze_when_told(started, after=3600):
    Path(started).touch()
    try:
        time.sleep(60)
    except (TaskCancelled, TaskInterrupted):
        raise Snooze(after=after)

@task
def snooze_at(path):
    Path(path + ".started").touch()
    while not Path(path).exists():
        time.sleep(0.01)
    raise Snooze(after=3600)

@task(max_attempts=1)
def snooze_for(after):
    raise Snooze(after=after)
"""


@pytest.fixture(params=["fork", "inline"])
def executor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    directory = tmp_path / "shop"
    directory.mkdir()
    return Shop(directory, TASKS)


@pytest.fixture
def supervisor(database_url: str, shop: Shop, executor: str) -> Iterator[Supervisor]:
    with shop.supervisor(database_url, workers=1, executor=executor) as supervisor:
        yield supervisor


def enqueue(connection: Connection, shop: Shop, task: str, *args: object, max_attempts: int = 3) -> int:
    return shop.enqueue(connection, task, *args, max_attempts=max_attempts)


def wait_for_snooze(connection: Connection, run_id: int, *, claims: int = 1) -> dict[str, Any]:
    def snoozed() -> dict[str, Any] | None:
        row = run_row(connection, run_id)
        return row if row["status"] == "PENDING" and row["claims"] >= claims else None

    row = wait_until(snoozed, 20, f"run {run_id} to be snoozed")
    assert row is not None
    return row


def assert_not_charged(row: dict[str, Any], *, after_s: float) -> None:
    """It is as a run that was never claimed, but due `after_s` later, and its claims are counted."""
    assert (row["status"], row["attempts"], row["worker_ids"]) == ("PENDING", 0, [])
    assert (row["errors"], row["started_at"], row["finished_at"]) == ([], None, None)
    assert (row["leased_by"], row["lease_expires_at"], row["finish_due_at"]) == (None, None, None)
    due_in = row["run_after"] - row["last_attempted_at"]
    assert timedelta(seconds=after_s) <= due_in < timedelta(seconds=after_s + 20)


def test_a_polling_task_with_one_attempt_succeeds_after_many_snoozes(
    supervisor: Supervisor, connection: Connection, shop: Shop, tmp_path: Path
) -> None:
    path = tmp_path / "there"
    run_id = enqueue(connection, shop, "poll", str(path), max_attempts=1)
    wait_for_snooze(connection, run_id, claims=6)
    path.touch()
    row = wait_for_status(connection, run_id, "SUCCESSFUL")
    assert row["result"] == [1, row["claims"]]
    assert (row["attempts"], len(row["worker_ids"]), row["errors"]) == (1, 1, [])
    assert f"run {run_id} is snoozed for 0.02 s" in supervisor.log()
    assert "no file at claim 3" in supervisor.log()
    assert f"run {run_id} will be retried" not in supervisor.log()


def test_a_snoozed_run_looks_unclaimed_and_its_worker_is_free(
    supervisor: Supervisor, connection: Connection, shop: Shop
) -> None:
    run_id = shop.enqueue(
        connection, "snooze_for", 3600, max_attempts=1, metadata=json.dumps({"page": 7}), priority=5
    )
    assert_not_charged(wait_for_snooze(connection, run_id), after_s=3600)
    assert shop.result(connection, "version") == 1
    row = run_row(connection, run_id)
    assert (row["claims"], row["metadata"], row["priority"]) == (1, {"page": 7}, 5)
    assert "is snoozed for 3600 s" in supervisor.log()


def test_an_earlier_attempt_stays_as_it_was(
    supervisor: Supervisor, connection: Connection, shop: Shop
) -> None:
    run_id = enqueue(connection, shop, "fail_then_snooze")
    row = wait_for_snooze(connection, run_id, claims=2)
    assert (row["attempts"], len(row["worker_ids"]), len(row["errors"])) == (1, 1, 1)
    assert row["started_at"] is not None


@pytest.mark.usefixtures("supervisor")
def test_an_async_task_is_snoozed_out_of_a_task_group_too(connection: Connection, shop: Shop) -> None:
    run_id = enqueue(connection, shop, "snooze_in_a_group")
    assert_not_charged(wait_for_snooze(connection, run_id), after_s=3600)


@pytest.mark.usefixtures("supervisor")
@pytest.mark.parametrize("after", [-1, 3_153_600_001, 1e300, "60"])
def test_a_snooze_with_a_wrong_length_is_a_failure_with_a_sentence(
    connection: Connection, shop: Shop, after: object
) -> None:
    run_id = enqueue(connection, shop, "snooze_for", after, max_attempts=1)
    (error,) = wait_for_status(connection, run_id, "FAILED")["errors"]
    assert (error["kind"], error["exception"]) == ("failed", "ValueError")
    assert error["message"].startswith("after must be from 0 to 3153600000 seconds")


@pytest.mark.usefixtures("supervisor")
def test_the_longest_snooze_is_a_hundred_years(connection: Connection, shop: Shop) -> None:
    run_id = enqueue(connection, shop, "snooze_for", 3_153_600_000, max_attempts=1)
    assert wait_for_snooze(connection, run_id)["run_after"] > datetime.now(UTC) + timedelta(days=36_499)


@pytest.mark.usefixtures("supervisor")
def test_a_run_that_was_cancelled_is_not_snoozed(connection: Connection, shop: Shop, tmp_path: Path) -> None:
    started = tmp_path / "started"
    run_id = enqueue(connection, shop, "snooze_when_told", str(started))
    wait_until(started.exists, 20, "the task to start")
    connection.execute("update task_runs set cancel_requested_at = now() where id = %s", [run_id])
    row = wait_for_status(connection, run_id, "CANCELLED")
    assert [error["kind"] for error in row["errors"]] == ["cancelled"]


def test_a_draining_worker_can_snooze_its_last_run(
    supervisor: Supervisor, connection: Connection, shop: Shop, tmp_path: Path
) -> None:
    path = tmp_path / "drained"
    run_id = enqueue(connection, shop, "snooze_at", str(path))
    wait_until((tmp_path / "drained.started").exists, 20, "the task to start")
    supervisor.send(signal.SIGTERM)
    supervisor.wait_for_log("draining")
    path.touch()
    assert supervisor.wait() == 0
    assert_not_charged(run_row(connection, run_id), after_s=3600)


@pytest.mark.parametrize("executor", ["inline"], indirect=True)
def test_an_interrupted_task_may_snooze_to_say_that_it_has_done_nothing(
    supervisor: Supervisor, connection: Connection, shop: Shop, tmp_path: Path
) -> None:
    """It has one attempt and had started, so otherwise it would be FAILED."""
    started = tmp_path / "started"
    run_id = enqueue(connection, shop, "snooze_when_told", str(started), max_attempts=1)
    wait_until(started.exists, 20, "the task to start")
    assert supervisor.stop(signal.SIGQUIT) == 0
    assert_not_charged(run_row(connection, run_id), after_s=3600)


def test_with_the_drain_option_a_host_does_not_wait_for_snoozed_runs(
    database_url: str, connection: Connection, shop: Shop, executor: str
) -> None:
    run_id = enqueue(connection, shop, "snooze_for", 3600)
    with shop.supervisor(
        database_url, workers=1, executor=executor, environ={"REPROQ_DRAIN": "true"}
    ).starting() as supervisor:
        assert supervisor.wait() == 0
    assert_not_charged(run_row(connection, run_id), after_s=3600)


@pytest.mark.parametrize("executor", ["inline"], indirect=True)
def test_runs_of_one_batch_are_snoozed_and_recorded_separately(
    supervisor: Supervisor, connection: Connection, shop: Shop
) -> None:
    supervisor.send(signal.SIGUSR2)
    supervisor.wait_for_log("quiet")
    snoozed = [enqueue(connection, shop, "snooze_once", 0) for _ in range(60)]
    plain = [enqueue(connection, shop, "version") for _ in range(60)]
    supervisor.send(signal.SIGUSR2)
    for run_id in snoozed:
        row = wait_for_status(connection, run_id, "SUCCESSFUL")
        assert (row["result"], row["attempts"], row["errors"]) == (2, 1, [])
        assert len(row["worker_ids"]) == 1
    assert {wait_for_status(connection, run_id, "SUCCESSFUL")["claims"] for run_id in plain} == {1}


# --- programs ---


def test_a_program_can_ask_to_be_run_again_later(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    said = json.dumps({"snooze_seconds": 3600, "message": "the feed is not there"})
    with Supervisor(database_url, tmp_path, workers=1) as supervisor:
        run_id = add_run(connection, {"stderr": f"looked\n{said}\n", "exit": 1}, max_attempts=1)
        assert_not_charged(wait_for_snooze(connection, run_id), after_s=3600)
        assert "the feed is not there" in supervisor.log()
        refused = add_run(connection, {"stderr": '{"snooze_seconds": -1}', "exit": 1}, max_attempts=1)
        (error,) = wait_for_status(connection, refused, "FAILED")["errors"]
        assert error["message"].startswith("snooze_seconds must be a number of seconds from 0 to 3153600000")


def test_an_executor_in_python_can_raise_snooze(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    (tmp_path / "poller.py").write_text(
        "from reproq_prefork import executor\n"
        "def handler(payload):\n"
        "    if executor.context().claim < 3:\n"
        "        raise executor.Snooze(after=0)\n"
        "    return executor.context().claim\n"
        "executor.run(handler)\n"
    )
    command = f"{sys.executable} {tmp_path / 'poller.py'}"
    with Supervisor(database_url, tmp_path, workers=1, environ={"EXECUTOR_COMMAND": command}):
        run_id = add_run(connection, {}, max_attempts=1)
        row = wait_for_status(connection, run_id, "SUCCESSFUL")
        assert (row["result"], row["attempts"], row["claims"], row["errors"]) == (3, 1, 3, [])


# --- the statement ---


def snoozed(run_id: int, claim: int, after_s: float) -> Settlement:
    return handed_back(run_id, claim)._replace(delay_s=after_s, finish_due=True)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_cancel_that_the_worker_has_not_seen_is_not_lost(
    database_url: str, connection: Connection, cancelled: bool
) -> None:
    run_id = add_run(connection, {"v": 1, "task": "shop.poll"})
    with closing(worker_store(database_url)) as store:
        (run,) = store.finish_and_claim([], max_runs=1).runs
        if cancelled:
            connection.execute("update task_runs set cancel_requested_at = now()")
        assert store.finish_and_claim([snoozed(*run.token, 60)], max_runs=0).settled == 1
    row = run_row(connection, run_id)
    if cancelled:
        assert (row["status"], row["attempts"]) == (Status.CANCELLED, 0)
        assert [error["kind"] for error in row["errors"]] == ["cancelled"]
        assert row["finish_due_at"] is not None
    else:
        assert_not_charged(row, after_s=60)


def test_a_stale_snooze_changes_nothing(database_url: str, connection: Connection) -> None:
    run_id = add_run(connection, {})
    with closing(worker_store(database_url)) as store:
        (run,) = store.finish_and_claim([], max_runs=1).runs
        store.finish_and_claim([handed_back(*run.token)], max_runs=0)
        store.finish_and_claim([], max_runs=1)
        assert store.finish_and_claim([snoozed(*run.token, 60)], max_runs=0).settled == 0
    assert run_row(connection, run_id)["status"] == "RUNNING"


def test_show_prints_when_a_run_is_due_again_and_how_often_it_was_claimed(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    run_id = add_run(connection, {})
    with closing(worker_store(database_url)) as store:
        for _ in range(3):
            (run,) = store.finish_and_claim([], max_runs=1).runs
            store.finish_and_claim([snoozed(*run.token, 0)], max_runs=0)
        (run,) = store.finish_and_claim([], max_runs=1).runs
        store.finish_and_claim([snoozed(*run.token, 3600)], max_runs=0)
    shown = CommandLine(tmp_path, database_url).output("show", str(run_id))
    assert f"run {run_id}: PENDING, 0 of 3 attempts" in shown
    due = run_row(connection, run_id)["run_after"]
    assert f"due after     {due.strftime('%Y-%m-%d')}" in shown
    assert "claimed       4 times" in shown
