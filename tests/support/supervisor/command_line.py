"""`reproq-prefork` as a user runs it: a process of its own, with an environment of its own."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.support.supervisor.warm import WarmProgram

TIMEOUT_S = 30


class CommandLine:
    """Runs commands in `directory`, with DATABASE_URL and PATH as the whole environment."""

    def __init__(self, directory: Path, database_url: str | None) -> None:
        self.directory = directory
        self.environ = {"PATH": os.environ["PATH"]}
        if database_url is not None:
            self.environ["DATABASE_URL"] = database_url

    def run(
        self,
        *arguments: str,
        stdin: str | bytes = b"",
        environ: Mapping[str, str] | None = None,
        status: int | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run it to its end; `status` is what it must exit with. A traceback is never an answer."""
        with tempfile.TemporaryDirectory() as name:
            streams = [Path(name, each) for each in ("stdin", "stdout", "stderr")]
            streams[0].write_bytes(stdin.encode() if isinstance(stdin, str) else stdin)
            program = WarmProgram(
                arguments,
                directory=self.directory,
                environ=self.environ | dict(environ or {}),
                streams=streams,
            )
            try:
                returncode = program.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.kill(program.pid, signal.SIGKILL)
                program.wait()
                raise
            out, err = (stream.read_text(encoding="utf-8") for stream in streams[1:])
            done = subprocess.CompletedProcess(arguments, returncode, out, err)
        assert "Traceback" not in done.stderr, done.stderr
        if status is not None:
            assert done.returncode == status, (done.args, done.returncode, done.stdout, done.stderr)
        return done

    def output(self, *arguments: str, stdin: str | bytes = b"") -> str:
        """What it prints where all is well."""
        done = self.run(*arguments, stdin=stdin, status=0)
        assert done.stderr == "", done.stderr
        return done.stdout

    def start(self, *arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start it and leave it running; its output comes through pipes."""
        return subprocess.Popen(
            [sys.executable, "-m", "reproq_prefork", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env=self.environ | dict(environ or {}),
        )


class Terminal:
    """A command at a terminal of its own, with a person who types. A context manager."""

    def __init__(self, command_line: CommandLine, *arguments: str) -> None:
        self._ours, theirs = pty.openpty()
        self.shown = ""
        self._program = subprocess.Popen(
            [sys.executable, "-m", "reproq_prefork", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            cwd=command_line.directory,
            env=command_line.environ,
        )
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._program.kill()
        self._program.wait()
        os.close(self._ours)

    def wait_for(self, text: str) -> None:
        while text not in self.shown:
            assert self._read(), f"{text!r} was not shown, but: {self.shown!r}"

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def status(self) -> int:
        """Its exit status, once it has ended. `shown` then holds everything."""
        while self._read():
            pass
        return self._program.wait(TIMEOUT_S)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._ours], [], [], TIMEOUT_S)
        assert ready, f"nothing happened for {TIMEOUT_S} s after: {self.shown!r}"
        try:
            read = os.read(self._ours, 4096)
        except OSError:  # EIO: nobody has the terminal open any more
            return False
        self.shown += read.decode()
        return bool(read)
