"""The kill storm's fifth rule, for one master that lives through it: nothing of the dead stays with it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.support.supervisor.supervisor import Supervisor
from tests.support.waiting import wait_until

RESPAWNS = 500
WARM_AFTER = 50  # by then it has done everything at least once
GROWTH_BYTES = 2 << 20  # some 4 KiB a respawn would be a leak that is seen


@pytest.mark.timeout(300)
def test_500_respawns_cost_the_master_neither_memory_nor_descriptors(
    database_url: str, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=4) as supervisor:
        master = psutil.Process(supervisor.pid)
        _respawn(supervisor, WARM_AFTER)
        resident, descriptors = master.memory_info().rss, _descriptors(supervisor, master)
        _respawn(supervisor, RESPAWNS)
        assert _descriptors(supervisor, master) == descriptors
        assert master.memory_info().rss - resident < GROWTH_BYTES
        assert supervisor.stop() == 0


def _respawn(supervisor: Supervisor, times: int) -> None:
    """Kill workers as soon as they are there, and their steward now and then."""
    killed = 0
    while killed < times:
        victims = supervisor.booted_worker_pids()
        if killed % 25 == 0:
            victims += supervisor.steward_pids()
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed += 1


def _descriptors(supervisor: Supervisor, master: psutil.Process) -> int:
    """Once all is calm."""
    wait_until(lambda: len(supervisor.booted_worker_pids()) == 4 and supervisor.steward_pids(), 30, "calm")
    return int(master.num_fds())
