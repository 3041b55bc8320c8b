"""The application whose Python tasks a process runs: its directory and environment, its import, and its executor.

Only a template, a worker and a check do this. A master never imports user code.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass, field

from reproq_prefork.boot.fork_safety import expect_threads, reseed_in_forks
from reproq_prefork.errors import SettingsError
from reproq_prefork.executors.command import CommandExecutor
from reproq_prefork.executors.contract import Executor, Runtime
from reproq_prefork.executors.dispatch import ChosenExecutor
from reproq_prefork.executors.forked import ForkExecutor
from reproq_prefork.executors.inline import InlineExecutor
from reproq_prefork.executors.python_runtime import PythonRuntime
from reproq_prefork.settings import ExecutorKind, Settings
from reproq_prefork.text.log import Log
from reproq_prefork.unix import proc
from reproq_prefork.unix.own_children import OwnChildren
from reproq_prefork.unix.threads import threads_at_risk


@dataclass(frozen=True, slots=True)
class Application:
    """`runtime` is already loaded; None: tasks are programs. `files`: the descriptors that it has opened.

    `threads`: those that it has started, beside which tasks are forked.
    """

    runtime: Runtime | None = None
    files: dict[int, tuple[int, int]] = field(default_factory=dict)
    threads: tuple[str, ...] = ()

    def complete(self, settings: Settings) -> Settings:
        """The settings, with values that the application knows: a Django application knows its database."""
        complete = getattr(self.runtime, "complete_settings", None)
        return settings if complete is None else complete(settings)

    def located(self, settings: Settings) -> Settings:
        """The settings, with the application's own connection to the database that they name.

        Asks that database, and the databases of the application. Raises SettingsError if no connection of the
        application leads there, and DatabaseUnavailable.
        """
        locate = getattr(self.runtime, "locate_runs", None)
        return settings if locate is None else locate(settings)


def load_application(settings: Settings) -> Application:
    """Prepare this process to run the tasks of `settings`. Raises ReproqError if that is not possible."""
    settings.require_executor()
    if not settings.runs_python:
        return Application()
    _enter(settings)
    before = proc.open_files()
    runtime = _runtime_of(settings)
    runtime.load()
    threads = threads_at_risk() if settings.executor is ExecutorKind.FORK else ()
    reseed_in_forks()
    expect_threads()
    after = proc.open_files()
    return Application(runtime, {fd: file for fd, file in after.items() if before.get(fd) != file}, threads)


def executor_of(settings: Settings, application: Application, log: Log) -> Executor:
    children = OwnChildren(keeps_pools=application.runtime is not None)
    command = CommandExecutor(
        settings.executor_argv,
        environ=settings.task_environ,
        payload_mode=settings.payload_mode,
        directory=str(settings.chdir),
        memory_bytes=settings.task_memory_bytes,
        children=children,
    )
    if application.runtime is None:
        return command
    return ChosenExecutor(
        settings.executor,
        fork=ForkExecutor(
            application.runtime,
            keep_files=application.files,
            memory_bytes=settings.task_memory_bytes,
            children=children,
            warned_of=application.threads,  # the check has warned of them
            warn=log.warning,
        ),
        inline=InlineExecutor(application.runtime, children=children),
        command=command if settings.executor_argv else None,
    )


def _runtime_of(settings: Settings) -> Runtime:
    if settings.django_settings is None:
        return PythonRuntime(settings.allowed_task_modules, settings.retry_policy)
    try:
        from reproq_prefork.django.perform.runtime import DjangoRuntime
    except ImportError as error:
        raise SettingsError([f"--django needs Django, which cannot be imported here: {error}."]) from error
    return DjangoRuntime(settings)


def _enter(settings: Settings) -> None:
    """Set the environment of tasks, and change to their directory, from which they import first.

    The symbolic links of the directory are resolved now, so later imports come from the same release.
    """
    os.environ.clear()
    os.environ.update(settings.task_environ)
    directory = os.path.realpath(settings.chdir)
    try:
        os.chdir(directory)
    except OSError as error:
        raise SettingsError([f"--chdir: cannot change to {directory}: {error.strerror}"]) from None
    sys.path[:] = [directory, *(path for path in sys.path if path not in ("", directory))]
    importlib.invalidate_caches()
