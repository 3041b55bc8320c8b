"""A master below the init of a pid namespace, as in a container: pid 1 is ours, and the master is its child.

The kernel ends all that is left in the namespace once pid 1 has ended. A process has another pid inside than
it has outside. All pids here are those outside; `own_pid` gives the one inside.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
from pathlib import Path

import psutil

from tests.support.supervisor.supervisor import Supervisor

IN_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
MASTER = "reproq-prefork: master"
FOR_THE_MASTER = frozenset({signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT})


@functools.cache
def can_be_made() -> bool:
    """It takes root, and a kernel that lets it."""
    try:
        return subprocess.run([*IN_NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def own_pid(pid: int) -> int:
    """The pid of a process in its own namespace. Raises psutil.NoSuchProcess."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        raise psutil.NoSuchProcess(pid) from None
    (pids,) = (line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
    return int(pids[-1])


class ContainedSupervisor(Supervisor):
    """Raises psutil.NoSuchProcess for as long as there is no master yet."""

    @property
    def pid(self) -> int:
        """The master's."""
        for child in self._init().children():
            if " ".join(child.cmdline()).startswith(MASTER):
                return child.pid
        raise psutil.NoSuchProcess(super().pid, msg="no master was started yet")

    def family(self) -> list[psutil.Process]:
        """Pid 1 first."""
        try:
            init = self._init()
            return [init, *init.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def send(self, signum: int) -> None:
        """To pid 1, which passes it on, as one does to a container; what cannot be passed on, to the master."""
        os.kill(self.pid if signum in FOR_THE_MASTER else self._init().pid, signum)

    def _init(self) -> psutil.Process:
        for child in psutil.Process(super().pid).children():
            return child
        raise psutil.NoSuchProcess(super().pid, msg="no pid 1 was started yet")
