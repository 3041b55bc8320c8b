"""A real supervisor, started as a user starts it: only what is measured is chosen, the rest are the defaults."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.children import running

CHECKOUT = Path(__file__).parent.parent.parent
PLAIN_TASKS = "benchmarks.subject.tasks"
DJANGO_TASKS = "benchmarks.subject.django_tasks"
DJANGO_SETTINGS = "benchmarks.subject.django_settings"


@dataclass(frozen=True)
class Installation:
    """How one is started: `arguments` of the command line, and the task that a drain of it runs."""

    name: str
    arguments: tuple[str, ...]
    task: str
    max_attempts: int = 3  # of the runs; 1: they are always claimed alone


COMMAND = Installation("command", ("--command", "/bin/sh -c 'echo null'"), "")
FORK = Installation(
    "fork", ("--executor", "fork", "--allowed-task-modules", PLAIN_TASKS), f"{PLAIN_TASKS}.no_op"
)
INLINE = Installation(
    "inline", ("--executor", "inline", "--allowed-task-modules", PLAIN_TASKS), f"{PLAIN_TASKS}.no_op"
)
INLINE_SINGLE = replace(INLINE, name="inline, one commit a task", max_attempts=1)
FORK_DJANGO = Installation(
    "fork, Django", ("--executor", "fork", "--django", DJANGO_SETTINGS), f"{DJANGO_TASKS}.no_op"
)
INLINE_DJANGO = Installation(
    "inline, Django", ("--executor", "inline", "--django", DJANGO_SETTINGS), f"{DJANGO_TASKS}.no_op"
)


@contextmanager
def supervisor(
    database_url: str, installation: Installation, *, workers: int, environ: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """`reproq-prefork` for the time of the block. Raises ChildFailed if it ends by itself."""
    command = [sys.executable, "-m", "reproq_prefork", *installation.arguments, "--workers", str(workers)]
    with tempfile.TemporaryDirectory(prefix="reproq-bench-") as name:
        directory = Path(name)
        variables = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(CHECKOUT),
            "DATABASE_URL": database_url,
            **(environ or {}),
        }
        with running(command, cwd=directory, environ=variables, log=directory / "log") as children:
            yield children[0]
