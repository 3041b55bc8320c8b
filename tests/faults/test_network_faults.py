"""Rows 19, 20 and 22 of the fault list: lost replies, a cut network, slow and half-open links."""

from __future__ import annotations

import itertools
from collections import Counter
from functools import partial
from pathlib import Path

import psycopg
import pytest

from reproq_prefork import NewRun, enqueue_many
from tests.support.postgres.proxy import Break, Proxy
from tests.support.supervisor.shop import Shop
from tests.support.supervisor.supervisor import (
    SHORT_LEASE,
    TASK_PROGRAM,
    Connection,
    Supervisor,
    add_run,
    diary,
    run_row,
    wait_for_start,
    wait_for_status,
)
from tests.support.unix.network import namespace
from tests.support.waiting import wait_until


@pytest.mark.timeout(120)
def test_19_replies_that_are_lost_after_the_commit_cost_no_second_execution(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    with Proxy(database_url) as proxy, Supervisor(proxy.url, tmp_path, workers=2) as supervisor:
        runs = [add_run(connection, {"diary": str(pages)}) for _ in range(80)]
        for distance in range(1, 16):
            proxy.break_statement(distance, Break.AFTER)
            wait_until(lambda: proxy.has_broken, 20, "the statement whose reply is lost")
        for run_id in runs:
            row = wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=30)
            assert (row["attempts"], row["errors"]) == (1, [])
        assert supervisor.stop() == 0
    assert Counter(run_id for what, run_id, *_ in diary(pages) if what == "start") == dict.fromkeys(runs, 1)


@pytest.mark.timeout(90)
def test_20_a_host_that_is_cut_off_ends_its_task_before_another_may_take_it(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    pages = tmp_path / "diary"
    with (
        namespace() as cut_off,
        Proxy(database_url, host=cut_off.gateway) as proxy,
        Supervisor(proxy.url, tmp_path, workers=1, environ=SHORT_LEASE, within=cut_off.prefix) as first,
    ):
        run_id = add_run(connection, {"wait_for": str(tmp_path / "go"), "diary": str(pages)})
        wait_for_start(pages)
        task = next(diary(pages))[3]
        with Supervisor(database_url, tmp_path, workers=1, environ=SHORT_LEASE) as second:
            cut_off.cut()
            wait_until(partial(_gone_before_it_is_free, connection, run_id, task), 20, "the task to be ended")
            wait_until(lambda: run_row(connection, run_id)["claims"] == 2, 20, "the other host to claim it")
            cut_off.heal()
            (tmp_path / "go").touch()
            row = wait_for_status(connection, run_id, "SUCCESSFUL")
            assert row["attempts"] == 2
            assert row["errors"][0]["kind"] == "lease_expired"
            assert second.stop() == 0
        # The first is on its own again, and works on.
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL", timeout_s=40)
        assert first.stop() == 0
    assert [what for what, *_ in diary(pages)] == ["start", "start", "end"]


@pytest.mark.timeout(90)
@pytest.mark.parametrize("executor", ["command", "inline"])
def test_20_a_claim_whose_answer_comes_after_the_lease_is_not_started(
    database_url: str, connection: Connection, tmp_path: Path, executor: str
) -> None:
    """The first bug that the storm found was a stale start of one millisecond: seed 195525."""
    shop = Shop(tmp_path, NOTE)
    pages = tmp_path / "noted"

    def host(url: str) -> Supervisor:
        return shop.supervisor(url, workers=1, executor=executor, environ={**SHORT_LEASE, **TASK_COMMAND})

    def enqueue(wait_for: str) -> int:
        if executor == "command":
            return add_run(connection, {"wait_for": wait_for, "diary": str(pages)})
        return shop.enqueue(connection, "note", str(pages), wait_for)

    with Proxy(database_url) as proxy, host(proxy.url) as first:
        busy, run_id = enqueue(str(tmp_path / "go")), enqueue("/")
        wait_until(lambda: pages.exists(), 10, "the first task to start")
        proxy.deaf = True
        (tmp_path / "go").touch()
        wait_for_status(connection, busy, "SUCCESSFUL")
        wait_until(partial(_its_lease_is_over, connection, run_id), 10, "the lease of the claim to be over")
        proxy.deaf = False  # before the client's own patience of 8 s is over
        first.wait_for_log("was not started: the worker's lease has ended")
        with host(database_url) as second:
            assert wait_for_status(connection, run_id, "SUCCESSFUL")["claims"] == 2
            assert (first.stop(), second.stop()) == (0, 0)
    assert pages.read_text().count("start") == 2


NOTE = """
@task
def note(pages, wait_for):
    with open(pages, "a") as diary:
        diary.write("start\\n")
    while not os.path.exists(wait_for):
        time.sleep(0.005)
"""
TASK_COMMAND = {"EXECUTOR_COMMAND": TASK_PROGRAM}


def _its_lease_is_over(connection: Connection, run_id: int) -> bool:
    row = connection.execute(
        "select run.lease_expires_at < now() and worker.lease_expires_at < now()"
        " from task_runs as run join reproq_workers as worker on worker.id = run.leased_by where run.id = %s",
        [run_id],
    ).fetchone()
    return row is not None and bool(row[0])


def _gone_before_it_is_free(connection: Connection, run_id: int, task: int) -> bool:
    claims = run_row(connection, run_id)["claims"]
    gone = not Path(f"/proc/{task}").exists()
    assert gone or claims == 1, "another host has claimed it while the task still runs"
    return gone


@pytest.mark.timeout(60)
def test_22_a_slow_link_expires_no_lease(database_url: str, connection: Connection, tmp_path: Path) -> None:
    with Proxy(database_url) as proxy, Supervisor(proxy.url, tmp_path, workers=2, environ=SHORT_LEASE):
        proxy.delay_s = 0.02  # of each message, of which a statement is five
        runs = [add_run(connection, {"sleep": 5}) for _ in range(2)]
        for run_id in runs:
            row = wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=30)
            assert (row["attempts"], row["claims"]) == (1, 1)


def _a_run_whose_task_has_started(connection: Connection, directory: Path) -> int:
    run_id = add_run(connection, {"wait_for": str(directory / "go"), "diary": str(directory / "diary")})
    wait_for_start(directory / "diary")
    return run_id


@pytest.mark.timeout(60)
def test_22_connections_that_are_reset_under_a_task_cost_it_nothing(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Proxy(database_url) as proxy, Supervisor(proxy.url, tmp_path, workers=1):
        run_id = _a_run_whose_task_has_started(connection, tmp_path)
        for _ in range(3):
            proxy.reset()
            wait_until(lambda: proxy.connections > 0, 20, "the steward to come back")
        (tmp_path / "go").touch()
        row = wait_for_status(connection, run_id, "SUCCESSFUL")
        assert (row["attempts"], row["claims"]) == (1, 1)


@pytest.mark.timeout(90)
def test_22_a_link_that_is_half_open_is_given_up_and_replaced(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """Nothing arrives, nothing is refused: only the client's own deadline ends such a wait."""
    with Proxy(database_url) as proxy, Supervisor(proxy.url, tmp_path, workers=1) as supervisor:
        run_id = _a_run_whose_task_has_started(connection, tmp_path)
        proxy.silent = proxy.deaf = True
        supervisor.wait_for_log("no answer from the server", timeout_s=30)
        proxy.reset()
        proxy.silent = proxy.deaf = False
        (tmp_path / "go").touch()
        row = wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=30)
        assert (row["attempts"], row["claims"]) == (1, 1)


@pytest.mark.parametrize("how", [Break.BEFORE, Break.AFTER])
def test_19_a_producer_without_an_answer_has_added_all_runs_or_none(
    database_url: str, connection: Connection, how: Break
) -> None:
    """For each statement of a COPY of many runs that can break."""
    new_runs = [NewRun.of({"n": n}) for n in range(600)]
    found: list[int] = []
    added = 0
    for number in itertools.count(1):
        with Proxy(database_url) as proxy, psycopg.connect(proxy.url, autocommit=True) as producer:
            proxy.break_statement(number, how)
            try:
                enqueue_many(producer, new_runs)
            except psycopg.OperationalError:
                assert producer.broken
            added = connection.execute("delete from task_runs").rowcount
            if not proxy.has_broken:
                break
            found.append(added)
    assert added == len(new_runs)
    assert len(found) > 3
    assert set(found) == ({0} if how is Break.BEFORE else {0, len(new_runs)})
