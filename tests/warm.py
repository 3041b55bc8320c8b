"""`reproq-prefork` in a process of its own, forked from one that has imported it already.

To start Python and import the program takes a quarter of a second of processor time, to fork what has done so some
milliseconds. All else is as for `python -m reproq_prefork`: arguments, environment, directory, streams, exit
status.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from setproctitle import getproctitle

from reproq_prefork.cli.entry import main

_forkserver = multiprocessing.get_context("forkserver")
_forkserver.set_forkserver_preload(["reproq_prefork.cli.entry"])

_MODES = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_APPEND, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


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
        # Daemon: what is left of it when the tests end is ended.
        self._process = _forkserver.Process(
            target=_become, args=(list(arguments), directory, dict(environ), list(streams)), daemon=True
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout_s: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        self._process.join(timeout_s)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("reproq-prefork", timeout_s or 0)
        return self._process.exitcode


def is_alike(environ: Mapping[str, str]) -> bool:
    """Whether a new interpreter would be like the one that is forked."""
    return not any(name.startswith("PYTHON") for name in environ)


def _become(arguments: list[str], directory: Path, environ: dict[str, str], streams: list[Path]) -> None:
    os.setsid()
    for number, (path, mode) in enumerate(zip(streams, _MODES, strict=True)):
        opened = os.open(path, mode, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0, closefd=False)  # multiprocessing has closed the one before
    os.chdir(directory)
    getproctitle()  # finds where the title stands beside the environment, as long as that is where it was
    os.environ.clear()
    os.environ.update(environ)
    sys.path.insert(0, str(directory))
    sys.argv[1:] = arguments
    main()
