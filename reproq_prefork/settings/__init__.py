"""The settings of one master, as plain values, and the numbers that nobody sets.

`options`, `sources` and `resolve` find them (flags, environment, files). Every other part only sees a `Settings`.
May import `model`, `spec`, `text` and errors.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reproq_prefork.errors import SettingsError
from reproq_prefork.model.identity import KnownServer
from reproq_prefork.model.settlement import RetryPolicy
from reproq_prefork.text.log import LogFormat, LogLevel
from reproq_prefork.text.redact import mask_url

SWEEP_INTERVAL_S = 5.0

# A lease may miss five renewals before it ends. A worker stops believing in it one renewal earlier.
RENEWALS_PER_LEASE = 6


class PayloadMode(enum.Enum):
    """How an executor gets the payload: as an argument, or on standard input."""

    ARGV = "argv"
    STDIN = "stdin"


class ExecutorKind(enum.Enum):
    """What executes a task: an external program, a fork of the worker, or the worker itself."""

    COMMAND = "command"
    FORK = "fork"
    INLINE = "inline"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a master and its children. Picklable: the check of a reload sends it through a pipe.

    `repr` shows neither the database URL nor the environment of tasks, since both hold passwords.
    """

    database_url: str | None = field(repr=False)
    database_url_is_flag: bool  # a flag is stronger than Django's settings
    workers: int
    queues: tuple[str, ...]
    queues_are_given: bool  # False: they are the default
    excluded_queues: tuple[str, ...]  # none of `queues` is one of these
    worker_id: str
    poll_interval_s: float
    python_path: str
    executor_module: str | None  # at most one of these two is set
    command: tuple[str, ...] | None
    executor: ExecutorKind
    allowed_task_modules: tuple[str, ...]  # modules that may hold Python tasks; empty: the option is not set
    django_settings: str | None  # the settings module of a Django application
    task_env: tuple[str, ...] | None  # the variables that tasks get; None: all
    payload_mode: PayloadMode
    lease_s: float
    timeout_s: float  # of a run that has no timeout of its own; 0: no deadline
    max_attempts_ceiling: int | None  # for every run on this host, whatever the run says; None: no ceiling
    shutdown_timeout_s: float
    boot_timeout_s: float
    retry_base_s: float
    retry_max_s: float
    max_tasks: int  # a worker is replaced after about so many tasks; 0: never
    max_rss_kib: int  # a worker is replaced once it is larger; 0: never
    task_memory_bytes: int  # address space of each process of a task; 0: no limit
    pid_file: Path | None
    log_level: LogLevel
    log_format: LogFormat
    drain: bool
    reload: bool  # a change to a source file sends HUP to the master
    chdir: Path  # absolute, with its symbolic links, so that a reload follows them again
    task_environ: Mapping[str, str] = field(repr=False)  # the environment that each task starts with
    # The Django backends that keep their runs in this database: each alias in TASKS, with the alias in DATABASES
    # that leads there. The check finds them.
    django_backends: tuple[tuple[str, str], ...] = ()
    known_server: KnownServer = field(default_factory=KnownServer)  # found by the check; not an option

    @property
    def renew_interval_s(self) -> float:
        return self.lease_s / RENEWALS_PER_LEASE

    @property
    def retry_policy(self) -> RetryPolicy:
        return RetryPolicy(self.retry_base_s, self.retry_max_s, self.max_attempts_ceiling)

    @property
    def fence_margin_s(self) -> float:
        """How long before its lease ends for others a worker treats it as lost."""
        return self.lease_s / RENEWALS_PER_LEASE

    @property
    def believed_lease_s(self) -> float:
        """How long a worker believes in a lease, from the moment before it asked for it."""
        return self.lease_s - self.fence_margin_s

    @property
    def fence_grace_s(self) -> float:
        """How long after the end of a believed lease a worker has to end its task, before its master ends it: half
        of what is left of the lease."""
        return self.fence_margin_s / 2

    @property
    def runs_python(self) -> bool:
        """Whether tasks are Python functions that workers import."""
        return self.executor is not ExecutorKind.COMMAND

    @property
    def executor_argv(self) -> tuple[str, ...]:
        """The program that executes a task, with its fixed arguments; empty if none is set."""
        if self.command is not None:
            return self.command
        if self.executor_module is not None:
            return (self.python_path, "-m", self.executor_module)
        return ()

    @property
    def masked_database_url(self) -> str:
        """The database URL with its password masked; empty if none is set."""
        return mask_url(self.database_url or "")

    def require_database_url(self) -> str:
        """The database URL. Raises SettingsError if none is set."""
        if self.database_url is None:
            raise SettingsError(
                [
                    "No database is set: give --database-url, or set DATABASE_URL in the environment or in "
                    ".env, for example postgresql://app@localhost/app (`reproq-prefork demo` does not need one)."
                ]
            )
        return self.database_url

    def require_executor(self) -> None:
        """Raises SettingsError if nothing is set that can execute tasks."""
        if not self.runs_python and not self.executor_argv:
            raise SettingsError(
                [
                    "Nothing is set that could run a task: give --django or --allowed-task-modules for Python "
                    "tasks, --executor-module for a Python program, or --command for any other (or set "
                    "REPROQ_DJANGO, ALLOWED_TASK_MODULES, EXECUTOR_MODULE or EXECUTOR_COMMAND)."
                ]
            )
