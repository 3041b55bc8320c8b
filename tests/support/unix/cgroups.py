"""A control group of this test's own (cgroup v1, as root): what it limits, the kernel refuses or ends."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

ROOT = Path("/sys/fs/cgroup")

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Cgroup:
    path: Path

    def add(self, processes: Iterable[psutil.Process]) -> None:
        """They, and what they start from now on."""
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                (self.path / "cgroup.procs").write_text(str(process.pid))

    def limit(self, name: str, value: int | str) -> None:
        (self.path / name).write_text(str(value))

    def read(self, name: str) -> int:
        return int((self.path / name).read_text())


@contextlib.contextmanager
def cgroup(controller: str) -> Iterator[Cgroup]:
    """Skips the test where this machine has none to give."""
    path = ROOT / controller / f"reproq-{os.getpid()}-{next(_numbers)}"
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no control group for {controller} can be had here: {error}")
    try:
        yield Cgroup(path)
    finally:
        # It can go once nobody is in it; whoever still is, belongs to a supervisor that has been left by now.
        for pid in (path / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (path.parent / "cgroup.procs").write_text(pid)
        path.rmdir()
