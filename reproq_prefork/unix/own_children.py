"""The processes below a worker that outlive a task: those of its import, and pools that inline tasks keep."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from reproq_prefork.unix import kill, proc

# Module, object and attribute of the pid.
_HELPERS = (
    ("multiprocessing.forkserver", "_forkserver", "_forkserver_pid"),
    ("multiprocessing.resource_tracker", "_resource_tracker", "_pid"),
    ("joblib.externals.loky.backend.resource_tracker", "_resource_tracker", "_pid"),
)


class OwnChildren:
    """The children that this process has when this is made belong to no task."""

    def __init__(self, *, keeps_pools: bool) -> None:
        """`keeps_pools`: so do the processes of multiprocessing that tasks start in this process."""
        self._keeps_pools = keeps_pools
        children = (proc.identity_of(pid) for pid in proc.children_of(os.getpid()))
        self._first = [child for child in children if child is not None]
        self._pools: set[int] = set()

    def end_others(
        self, *, within_s: float, reap: Callable[[int], None] = kill.reap, failed: bool = False
    ) -> bool:
        """Kill everything else below this process. False: something still exists.

        `failed`: the task that has just ended. Pools that did not exist at the last call end too.
        """
        if not proc.has_children():
            return True
        self._first = [child for child in self._first if proc.is_alive(child)]
        spare = {child.pid for child in self._first}
        if self._keeps_pools:
            pools = _pools()
            self._pools = pools & self._pools if failed else pools
            spare |= self._pools | _helpers()
        return kill.kill_own_descendants(spare=spare, within_s=within_s, reap=reap)


def _pools() -> set[int]:
    processes = getattr(sys.modules.get("multiprocessing.process"), "_children", ())
    return {process.pid for process in processes}


def _helpers() -> set[int]:
    """Of multiprocessing and of joblib's loky: started once, they serve the whole process."""
    found = (
        getattr(getattr(sys.modules.get(module), name, None), pid, None) for module, name, pid in _HELPERS
    )
    return {pid for pid in found if pid is not None}
