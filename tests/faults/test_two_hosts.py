"""Two hosts for real: a network namespace and a master each, the server in a third, and one of them cut off."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.support.postgres.proxy import Proxy
from tests.support.rows import audit
from tests.support.supervisor.supervisor import (
    SHORT_LEASE,
    Connection,
    Supervisor,
    add_run,
    diary,
    run_row,
    wait_for_status,
)
from tests.support.unix.network import Namespace, namespace
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("chains", [("INPUT", "OUTPUT"), ("INPUT",), ("OUTPUT",)], ids=["both", "to", "from"])
def test_a_host_that_is_cut_off_ends_its_tasks_the_other_does_them_and_after_healing_both_work(
    database_url: str, connection: Connection, tmp_path: Path, chains: tuple[str, ...]
) -> None:
    """`chains`: which packets the server drops: those from the host, those to the host, or both."""
    audit.install(connection)
    pages = tmp_path / "diary"
    with (
        namespace() as cut_off,
        namespace() as other,
        Proxy(database_url, host=cut_off.gateway) as first_link,
        Proxy(database_url, host=other.gateway) as second_link,
        _host(first_link.url, tmp_path / "first", cut_off) as first,
    ):
        held = [
            add_run(connection, {"wait_for": str(tmp_path / "go"), "diary": str(pages)}) for _ in range(2)
        ]
        wait_until(lambda: len(list(diary(pages))) == 2, 10, "both tasks to start")
        tasks = {run_id: pid for _, run_id, _, pid, _ in diary(pages)}
        with _host(second_link.url, tmp_path / "second", other) as second:
            cut_off.cut(chains)
            for run_id in held:
                wait_until(partial(_gone_before_it_is_free, connection, run_id, tasks[run_id]), 20, "its end")
                wait_until(partial(_is_claimed_again, connection, run_id), 20, "the other host to claim it")
            cut_off.heal()
            (tmp_path / "go").touch()
            for run_id in held:
                assert wait_for_status(connection, run_id, "SUCCESSFUL")["claims"] == 2

            # Both work again: each has a run at the same time as the other.
            (tmp_path / "go").unlink()
            later = [add_run(connection, {"wait_for": str(tmp_path / "go")}) for _ in range(4)]
            for run_id in later:
                wait_for_status(connection, run_id, "RUNNING", timeout_s=40)
            (tmp_path / "go").touch()
            for run_id in later:
                assert wait_for_status(connection, run_id, "SUCCESSFUL")["attempts"] == 1
            assert (first.stop(), second.stop()) == (0, 0)
    assert Counter(what for what, *_ in diary(pages)) == {"start": 4, "end": 2}
    assert audit.final_transitions(connection) == dict.fromkeys([*held, *later], 1)


def _host(url: str, directory: Path, within: Namespace) -> Supervisor:
    directory.mkdir()
    return Supervisor(url, directory, workers=2, environ=SHORT_LEASE, within=within.prefix)


def _gone_before_it_is_free(connection: Connection, run_id: int, task: int) -> bool:
    claims = run_row(connection, run_id)["claims"]
    gone = not Path(f"/proc/{task}").exists()
    assert gone or claims == 1, "another host has claimed it while the task still runs"
    return gone


def _is_claimed_again(connection: Connection, run_id: int) -> bool:
    return bool(run_row(connection, run_id)["claims"] == 2)
