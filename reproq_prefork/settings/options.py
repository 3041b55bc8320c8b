"""Every option, defined once. The command line, `config`, `.env`, `reproq.toml` and the docs follow this table."""

from __future__ import annotations

import enum
from dataclasses import KW_ONLY, dataclass

from reproq_prefork.model.limits import DAY_S, MAX_ATTEMPTS
from reproq_prefork.settings import ExecutorKind, PayloadMode
from reproq_prefork.settings.kinds import (
    COMMAND,
    DATABASE_URL,
    MODULE,
    MODULES,
    PATH,
    QUEUE_NAMES,
    SWITCH,
    TASK_ENV,
    TEXT,
    WORKER_ID,
    Kind,
    choice,
    duration,
    size,
    whole_number,
)
from reproq_prefork.text.log import LogFormat, LogLevel

DEFAULT_QUEUES = ("default",)
DEFAULT_POLL_INTERVAL_S = 1.0
DEFAULT_PYTHON_PATH = "python3"
DEFAULT_LEASE_S = 30.0
DEFAULT_TIMEOUT_S = 3600.0
DEFAULT_SHUTDOWN_TIMEOUT_S = 25.0  # Kubernetes kills after 30
DEFAULT_BOOT_TIMEOUT_S = 60.0
DEFAULT_RETRY_BASE_S = 5.0
DEFAULT_RETRY_MAX_S = 3600.0
DEFAULT_MAX_TASKS = 0
DEFAULT_MAX_RSS_BYTES = 0
DEFAULT_TASK_MEMORY_BYTES = 0
DEFAULT_ENV_FILE = ".env"
DEFAULT_CONFIG_FILE = "reproq.toml"

MAX_WORKERS = 1024


class Group(enum.StrEnum):
    """The headings under which `--help` lists the options, in this order."""

    WHERE = "Where things are"
    RUNS = "What runs"
    PYTHON = "Python tasks"
    PROGRAMS = "Programs"
    WORKERS = "Workers"
    TIMES = "Times"
    ATTEMPTS = "Attempts"
    PROCESS = "The process"


@dataclass(frozen=True, slots=True)
class Option:
    """One option. The code uses `name`; people set the flag or the variable.

    `default` is a parsed value. It is None if the option has no default, or if the default is computed at the
    start. Then `default_text` describes it, for the help and the docs.
    """

    name: str
    flags: tuple[str, ...]
    env: str
    kind: Kind
    default: object
    help: str
    _: KW_ONLY
    group: Group
    field: str = ""  # of `Settings`, if it has another name there
    default_text: str = ""
    secret: bool = False
    multiple: bool = False  # the flag can be repeated
    locates_files: bool = False  # a flag or a variable only: the files that it leads to cannot set it

    @property
    def long_flag(self) -> str:
        return self.flags[-1]

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables that set it. All options can be set by `REPROQ_` and the name of the flag."""
        uniform = "REPROQ_" + self.long_flag.removeprefix("--").replace("-", "_").upper()
        return (self.env,) if self.env == uniform else (self.env, uniform)

    @property
    def toml_key(self) -> str | None:
        return None if self.locates_files else self.long_flag.removeprefix("--").replace("-", "_")

    @property
    def is_switch(self) -> bool:
        return self.kind is SWITCH

    def show_default(self) -> str:
        """The default, for people."""
        return self.default_text or ("" if self.default is None else self.kind.show(self.default))


OPTIONS: tuple[Option, ...] = (
    Option(
        "database_url",
        ("--database-url",),
        "DATABASE_URL",
        DATABASE_URL,
        None,
        "The PostgreSQL server, as a URL or as key=value pairs.",
        secret=True,
        group=Group.WHERE,
    ),
    Option(
        "workers",
        ("-w", "--workers"),
        "REPROQ_WORKERS",
        whole_number(1, MAX_WORKERS),
        None,
        "The number of worker processes. Each executes one task at a time.",
        default_text="number of CPUs",
        group=Group.WORKERS,
    ),
    Option(
        "queues",
        ("--queue",),
        "QUEUE_NAME",
        QUEUE_NAMES,
        DEFAULT_QUEUES,
        "The queues to take tasks from. Repeat the option, or give a list with commas. Their order is not a "
        "priority. If it is not set, the queues of the Django project are used.",
        multiple=True,
        group=Group.RUNS,
    ),
    Option(
        "excluded_queues",
        ("--exclude-queue",),
        "REPROQ_EXCLUDE_QUEUE",
        QUEUE_NAMES,
        None,
        "Queues to leave to other hosts.",
        default_text="none",
        multiple=True,
        group=Group.RUNS,
    ),
    Option(
        "worker_id",
        ("--worker-id",),
        "WORKER_ID",
        WORKER_ID,
        None,
        "The name of this host's workers in the database.",
        default_text="worker-<hostname>-<timestamp>",
        group=Group.WORKERS,
    ),
    Option(
        "poll_interval",
        ("--poll-interval",),
        "POLL_INTERVAL",
        duration(0.01, 3600.0),
        DEFAULT_POLL_INTERVAL_S,
        "How often to look for tasks that no notification announced.",
        group=Group.WORKERS,
        field="poll_interval_s",
    ),
    Option(
        "executor",
        ("--executor",),
        "REPROQ_EXECUTOR",
        choice(ExecutorKind),
        None,
        "What executes a task: a program, a fork of the worker for each Python task, or the worker itself.",
        default_text="command if one is set, else fork",
        group=Group.RUNS,
    ),
    Option(
        "allowed_task_modules",
        ("--allowed-task-modules",),
        "ALLOWED_TASK_MODULES",
        MODULES,
        None,
        "The modules that may hold Python tasks. Modules below them are allowed too.",
        multiple=True,
        group=Group.PYTHON,
    ),
    Option(
        "django",
        ("--django",),
        "REPROQ_DJANGO",
        MODULE,
        None,
        "Execute the tasks of a Django application. The value is its settings module.",
        group=Group.WHERE,
        field="django_settings",
    ),
    Option(
        "python_path",
        ("--python-path",),
        "PYTHON_PATH",
        TEXT,
        DEFAULT_PYTHON_PATH,
        "The Python that runs the executor module.",
        group=Group.PROGRAMS,
    ),
    Option(
        "executor_module",
        ("--executor-module",),
        "EXECUTOR_MODULE",
        MODULE,
        None,
        "Run each task as `PYTHON_PATH -m MODULE --payload <json>`.",
        group=Group.PROGRAMS,
    ),
    Option(
        "command",
        ("--command",),
        "EXECUTOR_COMMAND",
        COMMAND,
        None,
        "Run each task as `COMMAND --payload <json>`, for any program. A shell's rules split it into words.",
        group=Group.PROGRAMS,
    ),
    Option(
        "task_env",
        ("--task-env",),
        "REPROQ_TASK_ENV",
        TASK_ENV,
        None,
        "The environment variables that tasks get: all of them, or only the named ones.",
        default_text="inherit",
        group=Group.RUNS,
    ),
    Option(
        "payload_mode",
        ("--payload-mode",),
        "PAYLOAD_MODE",
        choice(PayloadMode),
        PayloadMode.ARGV,
        "How a task gets its payload. Every user of the host can see an argument. A payload that is too large for "
        "an argument goes to standard input in either mode.",
        group=Group.PROGRAMS,
    ),
    Option(
        "lease",
        ("--lease",),
        "REPROQ_LEASE",
        duration(1.0, DAY_S),
        DEFAULT_LEASE_S,
        "How long a claim is valid without a renewal. After that time, the tasks of a lost host start elsewhere.",
        group=Group.TIMES,
        field="lease_s",
    ),
    Option(
        "timeout",
        ("--timeout",),
        "REPROQ_TIMEOUT",
        duration(0.001, 365 * DAY_S, zero_means="no deadline"),
        DEFAULT_TIMEOUT_S,
        "How long a task may run if the run does not set a timeout; 0: no deadline.",
        group=Group.TIMES,
        field="timeout_s",
    ),
    Option(
        "max_attempts",
        ("--max-attempts",),
        "REPROQ_MAX_ATTEMPTS",
        whole_number(1, MAX_ATTEMPTS),
        None,
        "The most attempts that a run may have on this host, even if the run itself allows more.",
        default_text="what each run allows",
        group=Group.ATTEMPTS,
        field="max_attempts_ceiling",
    ),
    Option(
        "shutdown_timeout",
        ("--shutdown-timeout",),
        "REPROQ_SHUTDOWN_TIMEOUT",
        duration(0.0, DAY_S),
        DEFAULT_SHUTDOWN_TIMEOUT_S,
        "How long running tasks may take to finish after SIGTERM. After that they are handed back.",
        group=Group.TIMES,
        field="shutdown_timeout_s",
    ),
    Option(
        "boot_timeout",
        ("--boot-timeout",),
        "REPROQ_BOOT_TIMEOUT",
        duration(1.0, DAY_S),
        DEFAULT_BOOT_TIMEOUT_S,
        "How long the import of the application may take, and then how long a worker may take to become ready.",
        group=Group.TIMES,
        field="boot_timeout_s",
    ),
    Option(
        "retry_base",
        ("--retry-base",),
        "REPROQ_RETRY_BASE",
        duration(0.0, DAY_S),
        DEFAULT_RETRY_BASE_S,
        "Upper limit of the random wait before attempt 2. It doubles with each attempt.",
        group=Group.ATTEMPTS,
        field="retry_base_s",
    ),
    Option(
        "retry_max",
        ("--retry-max",),
        "REPROQ_RETRY_MAX",
        duration(0.0, 365 * DAY_S),
        DEFAULT_RETRY_MAX_S,
        "Upper limit of the wait before any attempt.",
        group=Group.ATTEMPTS,
        field="retry_max_s",
    ),
    Option(
        "max_tasks",
        ("--max-tasks",),
        "REPROQ_MAX_TASKS",
        whole_number(0, 1_000_000_000),
        DEFAULT_MAX_TASKS,
        "Replace a worker after about so many tasks; 0: never.",
        group=Group.WORKERS,
    ),
    Option(
        "max_rss",
        ("--max-rss",),
        "REPROQ_MAX_RSS",
        size(1024**2, 1024**4, zero_means="never"),
        DEFAULT_MAX_RSS_BYTES,
        "Replace a worker that uses more memory than this after a task; 0: never.",
        group=Group.WORKERS,
        field="max_rss_kib",
    ),
    Option(
        "task_memory",
        ("--task-memory",),
        "REPROQ_TASK_MEMORY",
        size(16 * 1024**2, 1024**4, zero_means="no limit"),
        DEFAULT_TASK_MEMORY_BYTES,
        "How much memory each process of a task may use, as address space; 0: no limit. Not for inline tasks.",
        group=Group.RUNS,
        field="task_memory_bytes",
    ),
    Option(
        "pid_file",
        ("--pid-file",),
        "REPROQ_PID_FILE",
        PATH,
        None,
        "The file in which to write the process id of the master.",
        group=Group.PROCESS,
    ),
    Option(
        "log_level",
        ("--log-level",),
        "REPROQ_LOG_LEVEL",
        choice(LogLevel),
        LogLevel.INFO,
        "Log events of this level and above.",
        group=Group.PROCESS,
    ),
    Option(
        "log_format",
        ("--log-format",),
        "REPROQ_LOG_FORMAT",
        choice(LogFormat),
        LogFormat.CONSOLE,
        "Lines for people, or one JSON object per line.",
        group=Group.PROCESS,
    ),
    Option(
        "drain",
        ("--drain",),
        "REPROQ_DRAIN",
        SWITCH,
        False,
        "Exit with 0 once no task in the queues is running, due, or waiting for a retry.",
        group=Group.WORKERS,
    ),
    Option(
        "reload",
        ("--reload",),
        "REPROQ_RELOAD",
        SWITCH,
        False,
        "For development: reload when a Python file, .env or reproq.toml below --chdir changes.",
        group=Group.WORKERS,
    ),
    Option(
        "env_file",
        ("--env-file",),
        "REPROQ_ENV_FILE",
        PATH,
        None,
        "A file of NAME=value lines. If you name a file, it must exist.",
        default_text=f"{DEFAULT_ENV_FILE}, if it exists",
        locates_files=True,
        group=Group.WHERE,
    ),
    Option(
        "config",
        ("--config",),
        "REPROQ_CONFIG",
        PATH,
        None,
        "A TOML file of settings. If you name a file, it must exist.",
        default_text=f"{DEFAULT_CONFIG_FILE}, if it exists",
        locates_files=True,
        group=Group.WHERE,
    ),
    Option(
        "chdir",
        ("--chdir",),
        "REPROQ_CHDIR",
        PATH,
        None,
        "The working directory. Relative paths, `.env` and `reproq.toml` start there.",
        default_text="current directory",
        locates_files=True,
        group=Group.WHERE,
    ),
)
