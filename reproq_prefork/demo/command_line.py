"""Runs `reproq-prefork` in processes that see none of the user's own settings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reproq_prefork.errors import ReproqError
from reproq_prefork.unix.proc import die_with_parent
from reproq_prefork.unix.signals import reset_for_exec

COMMAND_TIMEOUT_S = 20.0
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR")


class CommandFailed(ReproqError):
    """A command that must succeed has failed."""

    def __init__(self, arguments: tuple[str, ...], how: str) -> None:
        super().__init__(
            f"`reproq-prefork {' '.join(arguments)}` failed: {how.strip() or 'it did not say why'}"
        )


@dataclass(frozen=True)
class CommandLine:
    """Commands for one database, run in `directory`, which has no .env and no reproq.toml.

    Each has a session of its own, so that Ctrl-C in a terminal reaches only its parent. If its parent dies without
    notice, it gets SIGQUIT.
    """

    environ: Mapping[str, str]
    directory: Path

    @classmethod
    def of(cls, database_url: str, directory: Path, environ: Mapping[str, str]) -> CommandLine:
        """With the variables of `environ` for programs and languages, and none of ours."""
        inherited = {name: environ[name] for name in PASSED_ON if name in environ}
        if "PYTHONPATH" in environ:  # absolute, since the directory is another one
            inherited["PYTHONPATH"] = os.pathsep.join(
                os.path.abspath(entry) for entry in environ["PYTHONPATH"].split(os.pathsep) if entry
            )
        return cls({**inherited, "DATABASE_URL": database_url}, directory)

    def run(self, *arguments: str) -> str:
        """Run a command to its end. Returns what it printed. Raises CommandFailed."""
        try:
            done = subprocess.run(
                _argv(arguments),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                cwd=self.directory,
                env=self.environ,
                timeout=COMMAND_TIMEOUT_S,
                start_new_session=True,
                preexec_fn=_end_with(os.getpid()),
            )
        except subprocess.TimeoutExpired:
            raise CommandFailed(arguments, f"it did not end within {COMMAND_TIMEOUT_S:g} s") from None
        if done.returncode != 0:
            raise CommandFailed(arguments, done.stderr)
        return done.stdout.strip()

    def start(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """Start a command that keeps running. All its output is appended to `log`."""
        with log.open("ab") as output:
            return subprocess.Popen(
                _argv(arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self.directory,
                env=self.environ,
                start_new_session=True,
                preexec_fn=_end_with(os.getpid()),
            )


def _argv(arguments: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "reproq_prefork", *arguments]


def _end_with(parent: int) -> Callable[[], None]:
    def before_exec() -> None:
        reset_for_exec()
        die_with_parent(signal.SIGQUIT, parent)

    return before_exec
