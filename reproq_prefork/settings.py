"""The settings of one master, as plain values, and the numbers that nobody sets.

How they are found (flags, environment, files) is the business of `options`, `settings_sources` and
`settings_resolution`; every other part only ever sees a `Settings`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reproq_prefork.errors import SettingsError
from reproq_prefork.log import LogFormat, LogLevel
from reproq_prefork.redact import mask_url

SWEEP_INTERVAL_S = 5.0
MAX_RESULT_BYTES = 1024 * 1024
MAX_STDERR_TAIL_BYTES = 64 * 1024
MAX_PAYLOAD_BYTES = 1024 * 1024
# Linux refuses a single argument of more than 128 KiB (MAX_ARG_STRLEN, its final NUL included).
MAX_ARGV_PAYLOAD_BYTES = 120 * 1024

# A lease may miss five renewals before it ends, and a worker fences itself one renewal early.
RENEWALS_PER_LEASE = 6


class PayloadMode(enum.Enum):
    """How an executor is given the payload: as an argument, or on standard input."""

    ARGV = "argv"
    STDIN = "stdin"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a master and its children were told. Picklable: a reload's check hands it through a pipe.

    `repr` shows neither the database URL nor the environment of tasks, since both hold passwords.
    """

    database_url: str | None = field(repr=False)
    workers: int
    queues: tuple[str, ...]
    worker_id: str
    poll_interval_s: float
    python_path: str
    executor_module: str | None  # at most one of these two is set
    command: tuple[str, ...] | None
    task_env: tuple[str, ...] | None  # the names that tasks may see; None: all
    payload_mode: PayloadMode
    lease_s: float
    timeout_s: float  # of a run that has none of its own; 0: no deadline
    max_attempts_ceiling: int | None  # for every run on this host, whatever the run says; None: no ceiling
    shutdown_timeout_s: float
    boot_timeout_s: float
    retry_base_s: float
    retry_max_s: float
    max_tasks: int  # a worker is replaced after about so many; 0: never
    pid_file: Path | None
    log_level: LogLevel
    log_format: LogFormat
    drain: bool
    chdir: Path  # absolute, symbolic links kept: a reload follows where they point then
    task_environ: Mapping[str, str] = field(repr=False)  # what the environment of each task starts from

    @property
    def renew_interval_s(self) -> float:
        return self.lease_s / RENEWALS_PER_LEASE

    @property
    def fence_margin_s(self) -> float:
        """How long before its lease ends elsewhere a worker treats it as lost."""
        return self.lease_s / RENEWALS_PER_LEASE

    @property
    def believed_lease_s(self) -> float:
        """For how long a worker believes a lease, from before it was asked for."""
        return self.lease_s - self.fence_margin_s

    @property
    def executor_argv(self) -> tuple[str, ...]:
        """The program that runs a task and its fixed arguments; empty where none is set."""
        if self.command is not None:
            return self.command
        if self.executor_module is not None:
            return (self.python_path, "-m", self.executor_module)
        return ()

    @property
    def masked_database_url(self) -> str:
        """The database URL, fit to be shown; empty where none is set."""
        return mask_url(self.database_url or "")

    def require_database_url(self) -> str:
        """The database URL; raises SettingsError where none is set."""
        if self.database_url is None:
            raise SettingsError(
                [
                    "No database is set: give --database-url, or set DATABASE_URL in the environment or in "
                    ".env, for example postgresql://app@localhost/app (`reproq-prefork demo` needs none)."
                ]
            )
        return self.database_url

    def require_executor(self) -> tuple[str, ...]:
        """`executor_argv`; raises SettingsError where neither a module nor a command is set."""
        if not self.executor_argv:
            raise SettingsError(
                [
                    "Nothing is set that could run a task: give --executor-module for a Python module, or "
                    "--command for any other program (or set EXECUTOR_MODULE or EXECUTOR_COMMAND)."
                ]
            )
        return self.executor_argv
