"""Temporary files in memory, where there is enough of it.

A database is some 300 small files. Making them took 6 ms in memory, and from 12 to 300 ms on a disk, which would
be most of a test's time.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")
ENOUGH_MEMORY_BYTES = 2 << 30
OPEN_TO_ALL = 0o1777  # as /tmp is: a server of root's runs as somebody else


def shared_memory() -> Path | None:
    """A directory in memory; None where files had better go where they go by default."""
    if not os.access(SHARED_MEMORY, os.W_OK):
        return None
    return SHARED_MEMORY if shutil.disk_usage(SHARED_MEMORY).free >= ENOUGH_MEMORY_BYTES else None


@contextlib.contextmanager
def temporary_files_in_memory() -> Iterator[None]:
    """Those of this process and of all that it starts from now on; at the end they are gone."""
    root = shared_memory()
    if root is None or "TMPDIR" in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="reproq-tests-", dir=root, ignore_cleanup_errors=True) as name:
        Path(name).chmod(OPEN_TO_ALL)
        os.environ["TMPDIR"] = tempfile.tempdir = name
        try:
            yield
        finally:
            del os.environ["TMPDIR"]
            tempfile.tempdir = None
