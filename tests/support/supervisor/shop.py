"""An application of plain Python tasks that notes each of its imports, and a supervisor whose workers run it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tests.support.supervisor.supervisor import Connection, Supervisor, add_run, wait_for_status

TASKS = """
import os, random, time
from pathlib import Path
from reproq_prefork import task

VERSION = 1

with (Path(__file__).parent / "imports").open("a") as imports:
    imports.write(f"{os.getpid()}\\n")

@task
def version():
    return VERSION

@task
def draw():
    return [os.getpid(), random.random()]

@task
def sleep(seconds):
    time.sleep(seconds)
"""


class Shop:
    """`text` is added to its module."""

    def __init__(self, directory: Path, text: str = "") -> None:
        self.directory = directory
        self.name = f"shop_{os.urandom(4).hex()}"
        self.write(text)

    def write(self, text: str = "", *, version: int = 1) -> None:
        # Each version of another size: Python's cache looks at that, and at the second.
        module = TASKS.replace("VERSION = 1", f"VERSION = {version}{' ' * version}") + text
        (self.directory / f"{self.name}.py").write_text(module)

    def imports(self) -> list[int]:
        """The pid of each process that has imported it so far."""
        return [int(line) for line in (self.directory / "imports").read_text().splitlines()]

    def supervisor(
        self,
        database_url: str,
        *,
        workers: int = 2,
        executor: str = "fork",
        environ: Mapping[str, str] | None = None,
    ) -> Supervisor:
        return Supervisor(
            database_url,
            self.directory,
            workers=workers,
            environ={
                "EXECUTOR_COMMAND": "",
                "ALLOWED_TASK_MODULES": self.name,
                "REPROQ_EXECUTOR": executor,
                "PYTHONWARNINGS": "error",
                "PYTHONDONTWRITEBYTECODE": "1",
                **(environ or {}),
            },
        )

    def enqueue(self, connection: Connection, task: str, *args: object, **columns: object) -> int:
        return add_run(connection, self.call(task, *args), **columns)

    def call(self, task: str, *args: object) -> dict[str, object]:
        """The payload of it."""
        return {"v": 1, "task": f"{self.name}.{task}", "args": list(args), "kwargs": {}}

    def result(self, connection: Connection, task: str, *args: object) -> object:
        run_id = self.enqueue(connection, task, *args)
        return wait_for_status(connection, run_id, "SUCCESSFUL")["result"]
