"""Which children of a worker a task's end spares."""

from __future__ import annotations

import multiprocessing
import subprocess
import time

from reproq_prefork.unix import proc
from reproq_prefork.unix.own_children import OwnChildren
from reproq_prefork.unix.signals import set_mask
from tests.support.unix.children import status_of

SLEEP = ["sleep", "600"]


def test_first_children_and_pools_are_spared_and_what_a_failed_task_has_started_is_not() -> None:
    def worker() -> int:
        set_mask(())
        proc.adopt_orphans()
        helper = subprocess.Popen(SLEEP)
        children = OwnChildren(keeps_pools=True)
        pool = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        pool.start()
        stray = subprocess.Popen(SLEEP)
        assert children.end_others(within_s=5)
        assert (helper.poll(), pool.is_alive()) == (None, True)
        assert stray.poll() is not None
        late = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
        late.start()
        assert children.end_others(within_s=5, failed=True)
        assert (helper.poll(), pool.is_alive()) == (None, True)
        assert late.pid is not None
        assert proc.identity_of(late.pid) is None
        assert OwnChildren(keeps_pools=False).end_others(within_s=5)
        assert pool.is_alive(), "it was there before"
        pool.kill()
        helper.kill()
        return 0

    assert status_of(worker) == 0
