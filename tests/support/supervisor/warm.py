"""`reproq-prefork` in a process of its own, forked from one that has imported it already.

To start Python and import the program takes a quarter of a second of processor time, to fork what has done so some
milliseconds. All else is as for `python -m reproq_prefork`: arguments, environment, directory, streams, exit
status. Outside of pytest there is no such process.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.checkout import CHECKOUT

ADDRESS = "REPROQ_TEST_WARM_SERVER"  # for all processes that run a part of the tests


@contextlib.contextmanager
def warm_server() -> Iterator[None]:
    """Have one until the end; it is no child of this process, for some tests end all that are."""
    with tempfile.TemporaryDirectory(prefix="reproq-warm-") as name:
        address = os.environ[ADDRESS] = str(Path(name, "socket"))
        command = [sys.executable, "-m", "tests.support.supervisor.warm_server", address]
        lives_as_long, keep = os.pipe()
        try:
            subprocess.run(command, cwd=CHECKOUT, stdin=lives_as_long, check=True)
            yield
        finally:
            os.close(lives_as_long)
            os.close(keep)
            del os.environ[ADDRESS]


def can_be_warm(environ: Mapping[str, str]) -> bool:
    """Whether a new interpreter would be like the one that is forked, and there is one."""
    return ADDRESS in os.environ and not any(name.startswith("PYTHON") for name in environ)


class WarmProgram:
    """One that has started; to be asked and awaited as a `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        directory: Path,
        environ: Mapping[str, str],
        streams: Sequence[Path],
    ) -> None:
        """`streams`: the files that standard input is read from, and output and errors are added to."""
        assert can_be_warm(environ), "what starts an interpreter of its own is `python -m reproq_prefork`"
        wanted = {
            "arguments": list(arguments),
            "directory": str(directory),
            "environ": dict(environ),
            "streams": list(map(str, streams)),
        }
        self.returncode: int | None = None
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(os.environ[ADDRESS])
        self._connection.sendall(json.dumps(wanted).encode())
        self._connection.shutdown(socket.SHUT_WR)
        self._answers = self._connection.makefile("rb", buffering=0)
        self.pid = int(self._answers.readline())

    def poll(self) -> int | None:
        return self._hear(0)

    def wait(self, timeout_s: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        returncode = self._hear(timeout_s)
        if returncode is None:
            raise subprocess.TimeoutExpired("reproq-prefork", timeout_s or 0)
        return returncode

    def _hear(self, timeout_s: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout_s)[0]:
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode
