"""The processes of an installation, and what the kernel says of them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_ROLE = re.compile(r"^reproq-prefork: (\w+)")
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class NamedProcess:
    pid: int
    role: str  # master, steward, worker, …: what its title says


def named_processes(master_pid: int) -> list[NamedProcess]:
    """The master and all that descend from it."""
    found, todo = [], [master_pid]
    while todo:
        pid = todo.pop()
        title = _ROLE.match(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        found.append(NamedProcess(pid, title.group(1) if title else "other"))
        todo += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return found


def pss_mib(pid: int) -> float:
    pss = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    assert pss is not None
    return int(pss.group(1)) / 1024


def cpu_s(pid: int) -> float:
    """User and system time that it has used since its start."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
