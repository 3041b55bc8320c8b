"""docs/backup.md: each of its commands is run as it stands, and what the page says of the outcome is held."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from reproq_prefork.errors import ExitStatus
from tests.support.checkout import CHECKOUT
from tests.support.pages import code_blocks
from tests.support.postgres.databases import new_database
from tests.support.postgres.postgres_programs import programs_for
from tests.support.postgres.servers import Server
from tests.support.rows.restores import (
    DONE,
    DUE,
    HELD,
    LATER,
    assert_arrived_once,
    assert_specs_and_sequence,
    give_a_past,
    marks_of,
    runs_of,
    statuses_of,
)
from tests.support.supervisor.command_line import CommandLine

PAGE = (CHECKOUT / "docs" / "backup.md").read_text(encoding="utf-8")
TIMEOUT_S = 60

Outcome = Callable[[str, str], None]


def blocks() -> list[tuple[str, str]]:
    """The heading, and the commands below it."""
    found: list[tuple[str, str]] = []
    for section in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]:
        heading = section.splitlines()[0]
        found += [(heading, block) for block in code_blocks(section, "sh")]
    return found


@pytest.fixture(scope="module")
def original_url(server: Server, template_url: str) -> Iterator[str]:
    with new_database(server.url, template_url) as url:
        give_a_past(url)
        yield url


def has_the_runs(original: str, target: str) -> None:
    assert_arrived_once(original, target)
    assert marks_of(target) == (0, 0, 0)


def has_no_runs(original: str, target: str) -> None:
    assert runs_of(target) == {}
    assert_specs_and_sequence(target)
    assert marks_of(target) == (0, 0, 0)


def has_cancelled_runs(original: str, target: str) -> None:
    assert statuses_of(target) == {"SUCCESSFUL": DONE, "CANCELLED": HELD + DUE + LATER}
    for run in runs_of(target).values():
        assert run["finish_due_at"] is None
        if run["status"] == "CANCELLED":
            assert run["errors"][-1]["message"] == "this copy of the run's database was adopted without it"
    assert statuses_of(original) == {"SUCCESSFUL": DONE, "RUNNING": HELD, "PENDING": DUE + LATER}
    assert marks_of(target) == (0, 0, 0)


OUTCOMES: dict[str, Outcome] = {
    "Everything, into an empty database": has_the_runs,
    "Data only, into a migrated database": has_the_runs,
    "A copy for staging": has_no_runs,
    "Runs alone, from one database to another": has_the_runs,
    "Snapshots, base backups, point-in-time recovery": has_cancelled_runs,
    "Another major version, another server": has_the_runs,
}


def outcome_of(heading: str, commands: str) -> Outcome:
    if "--cancel-unfinished" in commands:
        return has_cancelled_runs
    return OUTCOMES[heading]


@pytest.mark.parametrize(("heading", "commands"), blocks(), ids=lambda text: text.split("\n")[0][:60])
def test_the_commands_of_the_page_do_what_the_page_says(
    heading: str, commands: str, original_url: str, server: Server, tmp_path: Path
) -> None:
    is_copied_first = "pg_dump" not in commands
    with new_database(server.url, original_url if is_copied_first else None) as target_url:
        if heading.startswith("Snapshots"):  # which cannot be told from the original
            with psycopg.connect(target_url, autocommit=True) as connection:
                connection.execute("select reproq_adopt()")
        *before, last = re.split(r"^(?=reproq-prefork .* adopt)", commands, flags=re.MULTILINE)
        if before and before[0]:
            run(before[0], original_url, target_url, tmp_path)
            assert_is_refused(target_url, tmp_path)
        run(last, original_url, target_url, tmp_path)
        outcome_of(heading, commands)(original_url, target_url)
        check(target_url, tmp_path, status=0)


def run(commands: str, original_url: str, target_url: str, directory: Path) -> None:
    path = [str(programs_for(original_url)), str(Path(sys.executable).parent), os.environ["PATH"]]
    done = subprocess.run(
        ["sh", "-ec", commands],
        cwd=directory,
        env={"PATH": os.pathsep.join(path), "DATABASE_URL": original_url, "TARGET_URL": target_url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert (done.returncode, done.stderr) == (0, "")


def assert_is_refused(url: str, directory: Path) -> None:
    said = check(url, directory, status=ExitStatus.DATABASE_IS_COPY)
    assert "is a copy: its runs came from the database" in said
    assert "is a copy" in CommandLine(directory, url).output("status")


def check(url: str, directory: Path, *, status: int) -> str:
    done = CommandLine(directory, url).run("check", environ={"EXECUTOR_COMMAND": "true"}, status=status)
    return done.stdout
