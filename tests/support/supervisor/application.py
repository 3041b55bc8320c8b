"""An application of plain Python tasks, written by a test, and a host that runs it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from tests.support.supervisor.supervisor import Supervisor


class Application:
    """A module of tasks, and a host that runs them."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory, self.name = directory, name

    def write(self, source: str) -> None:
        (self.directory / f"{self.name}.py").write_text(source)

    def task(self, name: str) -> Any:
        return getattr(import_module(self.name), name)

    def host(self, database_url: str, executor: str, **environ: str) -> Supervisor:
        settings = {
            "ALLOWED_TASK_MODULES": self.name,
            "REPROQ_EXECUTOR": executor,
            "PYTHONPATH": str(self.directory),
            **environ,
        }
        workers = int(settings.pop("WORKERS", "2"))
        return Supervisor(database_url, self.directory, workers=workers, environ=settings)
