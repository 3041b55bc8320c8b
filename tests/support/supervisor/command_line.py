"""`reproq-prefork` as a user runs it: a process of its own, with an environment of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

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
