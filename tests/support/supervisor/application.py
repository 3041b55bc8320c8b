"""An application of plain Python tasks, written by a test, and a host that runs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import Any

from reproq_prefork import Task
from tests.support.supervisor.supervisor import Supervisor


class Application:
    """A module of tasks. The test imports it when it asks for a task, and keeps what it has imported."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name

    def write(self, source: str) -> None:
        (self.directory / f"{self.name}.py").write_text(source)

    def task(self, name: str) -> Task[..., Any]:
        task = getattr(import_module(self.name), name)
        assert isinstance(task, Task)
        return task

    def host(
        self, database_url: str, *, workers: int = 1, environ: Mapping[str, str] | None = None
    ) -> Supervisor:
        settings = {"ALLOWED_TASK_MODULES": self.name, "EXECUTOR_COMMAND": "", **(environ or {})}
        return Supervisor(database_url, self.directory, workers=workers, environ=settings)


@contextmanager
def application_in(directory: Path) -> Iterator[Application]:
    """One in this directory, which is made, with a name that no other has."""
    directory.mkdir()
    name = f"shop_{os.urandom(4).hex()}"
    sys.path.insert(0, str(directory))
    invalidate_caches()
    try:
        yield Application(directory, name)
    finally:
        sys.path.remove(str(directory))
        sys.modules.pop(name, None)
