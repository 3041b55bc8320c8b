"""Which threads of a process a fork has to fear, by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOOK = "from reproq_prefork.unix.threads import threads_at_risk; print(threads_at_risk())"


@pytest.mark.parametrize(
    ("first", "found"),
    [
        ("", ()),
        (
            "import threading; threading.Thread(target=threading.Event().wait, name='poll', daemon=True).start()",
            ("poll",),
        ),
        (
            # A thread that Python does not know, and that has no name of its own.
            "import ctypes\n"
            "libc = ctypes.CDLL(None)\n"
            "kind = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)\n"
            "pause = kind(ctypes.cast(libc.pause, ctypes.c_void_p).value)\n"
            "libc.pthread_create(ctypes.byref(ctypes.c_ulong()), None, pause, None)",
            ("unnamed threads of a library",),
        ),
    ],
    ids=["none", "of Python", "unnamed"],
)
def test_threads_are_named_unless_they_survive_a_fork(first: str, found: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{first}\n{LOOK}"], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == (str(found), 0), done.stderr
