"""The threads of libraries: those of numpy survive a fork, and hide no other."""

from __future__ import annotations

import subprocess
import sys

import pytest

NUMPY = "import numpy; numpy.ones((99, 99)) @ numpy.ones((99, 99))"
POLLER = (
    "import threading; threading.Thread(target=threading.Event().wait, name='a poller', daemon=True).start()"
)
LOOK = "from reproq_prefork.unix.threads import threads_at_risk; print(threads_at_risk())"


@pytest.mark.parametrize(("first", "found"), [(NUMPY, "()"), (f"{NUMPY}\n{POLLER}", "('a poller',)")])
def test_threads_of_numpy_are_not_named(first: str, found: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{first}\n{LOOK}"], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == (found, 0), done.stderr
