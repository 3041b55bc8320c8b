"""README.md: the blocks for any language and for plain Python, run by bash and Python as they stand."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from reproq_prefork import get_run, wait
from tests.support.checkout import CHECKOUT
from tests.support.pages import code_blocks

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
END_TIMEOUT_S = 20.0
Connection = psycopg.Connection[Any]


def block(language: str, containing: str) -> str:
    (found,) = (each for each in code_blocks(README, language) if containing in each)
    return found


class Shell:
    """bash in a directory of its own, in which the program of this environment is the first in PATH."""

    def __init__(self, directory: Path, database_url: str) -> None:
        self.directory = directory
        bin_directory = Path(sys.executable).parent
        self._environ = {
            "PATH": f"{bin_directory}:{os.environ['PATH']}",
            "DATABASE_URL": database_url,
            "PYTHONPATH": str(directory),
            "REPROQ_WORKER_ID": "readme",
        }
        self._started: list[subprocess.Popen[bytes]] = []

    def run(self, command: str) -> str:
        """The output of one command. One that ends with & goes on until the end of the test."""
        if command.endswith("&"):
            with (self.directory / "log").open("wb") as log:
                self._started.append(
                    subprocess.Popen(
                        ["bash", "-c", f"exec {command.removesuffix('&')}"],
                        cwd=self.directory,
                        env=self._environ,
                        stdout=log,
                        stderr=log,
                    )
                )
            return ""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory,
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=END_TIMEOUT_S,
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def end(self) -> None:
        for process in self._started:
            process.send_signal(signal.SIGTERM)
        for process in self._started:
            assert process.wait(END_TIMEOUT_S) == 0, (self.directory / "log").read_text()


@pytest.fixture
def shell(tmp_path: Path, empty_database_url: str) -> Iterator[Shell]:
    shell = Shell(tmp_path, empty_database_url)
    yield shell
    shell.end()


def steps(console: str) -> Iterator[tuple[str, str]]:
    """The commands of a console, each with what stands below it."""
    for step in console.removeprefix("$ ").split("\n$ "):
        command, _, output = step.partition("\n")
        yield command, output.removesuffix("\n")


def test_the_console_for_any_language_prints_what_it_shows(shell: Shell, empty_database_url: str) -> None:
    for command, output in steps(block("console", "greet.py")):
        if command.startswith("export DATABASE_URL="):
            continue  # the test's own database
        if command.startswith("cat "):
            (shell.directory / command.removeprefix("cat ")).write_text(f"{output}\n")
        elif command.startswith("reproq-prefork show"):
            with psycopg.connect(empty_database_url, autocommit=True) as connection:
                wait(connection, 1, timeout=END_TIMEOUT_S)
            assert "Hello, Ada" in shell.run(command)
        elif output:
            assert shell.run(command) == f"{output}\n"
        else:
            shell.run(command)


def test_what_the_first_program_for_python_enqueues_runs(shell: Shell, empty_database_url: str) -> None:
    shell.run("reproq-prefork migrate")
    console = dict(steps(block("console", "greet.py")))
    (shell.directory / "greet.py").write_text(f"{console['cat greet.py']}\n")
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("create table orders (id integer)")
        program = (
            f"import os, psycopg\nDATABASE_URL = os.environ['DATABASE_URL']\n{block('python', 'greet-7')}"
        )
        shell.run(f"python3 - <<'END'\n{program}END")
        shell.run("reproq-prefork --workers 8 --executor-module greet &")
        greeted = wait(connection, 1, timeout=END_TIMEOUT_S)
        assert (greeted.status, greeted.result) == ("SUCCESSFUL", {"greeting": "Hello, Ada"})
        assert connection.execute("select count(*) from orders").fetchone() == (1,)


def test_the_task_of_the_page_runs_in_the_workers_of_the_page(shell: Shell, empty_database_url: str) -> None:
    shell.run("reproq-prefork migrate")
    example = block("python", "welcome")
    definition, call = example.split("\n\n\nwelcome.enqueue", 1)
    start = re.search(r"; (reproq-prefork .*)", definition)
    assert start is not None
    package = shell.directory / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tasks.py").write_text(definition)
    program = (
        "import os, psycopg\nfrom shop.tasks import welcome\n"
        f"with psycopg.connect(os.environ['DATABASE_URL']) as connection:\n    welcome.enqueue{call}"
    )
    shell.run(f"python3 - <<'END'\n{program}END")
    shell.run(f"{start[1]} &")
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        welcomed = wait(connection, 1, timeout=END_TIMEOUT_S)
        assert (welcomed.status, welcomed.result) == ("SUCCESSFUL", None), welcomed.errors
        assert get_run(connection, 1).task_path == "shop.tasks.welcome"
