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
from reproq_prefork.model.identity import KnownServer
from reproq_prefork.text.log import LogFormat, LogLevel
from reproq_prefork.text.redact import mask_url

SWEEP_INTERVAL_S = 5.0

# A lease may miss five renewals before it ends, and a worker fences itself one renewal early.
RENEWALS_PER_LEASE = 6


class PayloadMode(enum.Enum):
    """How an executor is given the payload: as an argument, or on standard input."""

    ARGV = "argv"
    STDIN = "stdin"


class ExecutorKind(enum.Enum):
    """What runs a task: an external program, a fork of the worker, or the worker itself."""

    COMMAND = "command"
    FORK = "fork"
    INLINE = "inline"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a master and its children were told. Picklable: a reload's check hands it through a pipe.

    `repr` shows neither the database URL nor the environment of tasks, since both hold passwords.
    """

    database_url: str | None = field(repr=False)
    database_url_is_flag: (
        bool  # it stands on the command line, so it is stronger than what Django's settings say
    )
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
    allowed_task_modules: tuple[str, ...]  # where Python tasks may come from; empty: the option is not set
    django_settings: str | None  # the settings module of a Django application
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
    max_rss_kib: int  # a worker is replaced once it is larger; 0: never
    task_memory_bytes: int  # address space of each process of a task; 0: no limit
    pid_file: Path | None
    log_level: LogLevel
    log_format: LogFormat
    drain: bool
    reload: bool  # the master is sent HUP when a source file changes
    chdir: Path  # absolute, symbolic links kept: a reload follows where they point then
    task_environ: Mapping[str, str] = field(repr=False)  # what the environment of each task starts from
    # Of the Django application's backends those that keep their runs in this database: aliases in TASKS, each with
    # the alias in DATABASES that leads there. The check finds them.
    django_backends: tuple[tuple[str, str], ...] = ()
    known_server: KnownServer = field(default_factory=KnownServer)  # found by the check, no option

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
    def fence_grace_s(self) -> float:
        """How long after the end of a believed lease a worker has to end its task, before its master ends it: half
        of what is left of the lease."""
        return self.fence_margin_s / 2

    @property
    def runs_python(self) -> bool:
        """Whether tasks are Python functions, which workers import."""
        return self.executor is not ExecutorKind.COMMAND

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

    def require_executor(self) -> None:
        """Raises SettingsError where nothing is set that runs tasks."""
        if not self.runs_python and not self.executor_argv:
            raise SettingsError(
                [
                    "Nothing is set that could run a task: give --django or --allowed-task-modules for Python "
                    "tasks, --executor-module for a Python program, or --command for any other (or set "
                    "REPROQ_DJANGO, ALLOWED_TASK_MODULES, EXECUTOR_MODULE or EXECUTOR_COMMAND)."
                ]
            )
