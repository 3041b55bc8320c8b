"""A real supervisor, started as a user starts it, for as long as a measurement takes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The cheapest program there is: what remains is the engine and the start of a process.
NO_OP_PROGRAM = "/bin/sh -c 'echo null'"


@contextmanager
def supervisor(database_url: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`reproq-prefork` with `arguments`, default settings otherwise; stopped at the end."""
    environ = {"PATH": os.environ["PATH"], "DATABASE_URL": database_url, "REPROQ_LOG_LEVEL": "warning"}
    with tempfile.TemporaryDirectory(prefix="reproq-bench-") as name:
        log_path = Path(name) / "log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "reproq_prefork", "--command", NO_OP_PROGRAM, *arguments],
                cwd=name,
                env=environ,
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
            try:
                yield process
            finally:
                process.terminate()
                if process.wait() != 0:
                    sys.stderr.write(log_path.read_text(errors="replace"))
                    raise RuntimeError(f"the supervisor ended with status {process.returncode}")
