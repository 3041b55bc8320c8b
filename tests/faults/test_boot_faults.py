"""Row 14 of the fault list: workers that hang or crash while they boot, in the template and each by itself."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.supervisor.shop import Shop
from tests.support.supervisor.supervisor import Connection, wait_for_status
from tests.support.waiting import wait_until

BOOT_TIMEOUT_S = 2
MOST_FORKS = 20  # of two workers until the master gives up; a fork storm makes hundreds
WATCHED_S = 4.0

# A thread does not survive a fork: so there is no template, and each worker imports for itself.
BY_ITSELF = "import threading\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
IN_A_BOOT = """
import setproctitle, signal
if setproctitle.getproctitle().startswith(("reproq-prefork: worker", "reproq-prefork: template")):
    if not (Path(__file__).parent / "mended").exists():
        {fault}
"""
FAULTS = {
    "raises": "raise RuntimeError('broken')",
    "hangs": "time.sleep(600)",
    "exits": "os._exit(0)",
    "is killed": "os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("importer", ["the template", "each worker"])
@pytest.mark.parametrize("fault", FAULTS)
def test_14_an_import_that_fails_in_each_boot_ends_the_start_with_its_own_status_and_without_a_storm(
    database_url: str, tmp_path: Path, fault: str, importer: str
) -> None:
    text = (BY_ITSELF if importer == "each worker" else "") + IN_A_BOOT.format(fault=FAULTS[fault])
    shop = Shop(tmp_path, text)
    environ = {"REPROQ_BOOT_TIMEOUT": f"{BOOT_TIMEOUT_S}s"}
    with shop.supervisor(database_url, executor="inline", environ=environ).starting() as supervisor:
        assert supervisor.wait(BOOT_TIMEOUT_S * 10) == 3
        assert "giving up" in supervisor.log()
    assert len(set(shop.imports())) <= MOST_FORKS


@pytest.mark.parametrize("fault", ["raises", "is killed"])
def test_14_an_application_that_breaks_later_is_retried_at_intervals_until_it_is_fixed(
    database_url: str, connection: Connection, tmp_path: Path, fault: str
) -> None:
    shop = Shop(tmp_path, BY_ITSELF + IN_A_BOOT.format(fault=FAULTS[fault]))
    (mended := tmp_path / "mended").touch()
    with shop.supervisor(database_url, executor="inline") as supervisor:
        mended.unlink()
        killed, other = supervisor.worker_pids()
        forks_before = len(shop.imports())
        os.kill(killed, signal.SIGKILL)
        watched_until = time.monotonic() + WATCHED_S
        wait_until(lambda: time.monotonic() > watched_until, WATCHED_S + 1, "the time to be over")
        assert 1 <= len(shop.imports()) - forks_before <= MOST_FORKS
        assert other in supervisor.booted_worker_pids()
        assert wait_for_status(connection, shop.enqueue(connection, "version"), "SUCCESSFUL")["attempts"] == 1
        mended.touch()
        wait_until(lambda: len(supervisor.booted_worker_pids()) == 2, 40, "a worker in the dead one's place")
        assert supervisor.stop() == 0
