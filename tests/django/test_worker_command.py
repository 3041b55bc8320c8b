"""`manage.py reproq_worker` becomes the program: same pid, same modules, every option passed on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

MANAGE = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
SETTINGS = 'SECRET_KEY = "x"\nINSTALLED_APPS = ["reproq_prefork.django"]\n'
# Each interpreter that starts says so, before anything else runs in it.
WITNESS = """
import json, os, sys
seen = [os.getpid(), sys.orig_argv[1:], os.getcwd(), sys.path, os.environ.get("PYTHONPATH")]
with open(os.environ["WITNESS"], "a") as file:
    print(json.dumps(seen), file=file)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    for directory in (site / "mysite", tmp_path / "lib/others", tmp_path / "witness", tmp_path / "cwd"):
        directory.mkdir(parents=True)
    (site / "manage.py").write_text(MANAGE)
    (site / "mysite/settings.py").write_text(SETTINGS)
    (tmp_path / "lib/others/settings.py").write_text(SETTINGS)
    (tmp_path / "witness/sitecustomize.py").write_text(WITNESS)
    return tmp_path


def run(project: Path, *arguments: str) -> tuple[int, Any, subprocess.CompletedProcess[str]]:
    """The pid that was started, and what the last interpreter of that pid was."""
    seen = project / "seen"
    process = subprocess.Popen(
        [sys.executable, str(project / "site/manage.py"), *arguments],
        cwd=project / "cwd",
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "mysite.settings",
            "PYTHONPATH": str(project / "witness"),
            "WITNESS": str(seen),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    out, _ = process.communicate(timeout=30)
    starts = [json.loads(line) for line in seen.read_text().splitlines()]
    assert len(starts) >= 2, out
    return process.pid, starts[1], subprocess.CompletedProcess(arguments, process.returncode, out)


def test_the_process_becomes_the_program(project: Path) -> None:
    arguments = ["--workers", "4", "--queue", "mail", "--command", "./run --settings x", "--version"]
    pid, (program_pid, argv, cwd, path, _), _ = run(project, "reproq_worker", *arguments)
    assert program_pid == pid
    assert argv == ["-m", "reproq_prefork", "--django", "mysite.settings", *arguments]
    assert cwd == str(project / "cwd")
    assert str(project / "site") in path


def test_the_command_handles_djangos_own_options(project: Path) -> None:
    _, (_, argv, _, path, _), _ = run(
        project, "reproq_worker", "--settings=others.settings", "--pythonpath", "../lib", "--drain"
    )
    assert argv == ["-m", "reproq_prefork", "--django", "others.settings", "--drain"]
    assert str(project / "lib") in path


def test_the_earlier_path_is_kept(project: Path) -> None:
    *_, (*_, python_path), _ = run(project, "reproq_worker", "--version")
    assert python_path.split(os.pathsep)[-1] == str(project / "witness")


def test_the_help_is_that_of_the_program(project: Path) -> None:
    for words in (["reproq_worker", "--help"], ["help", "reproq_worker"]):
        *_, (_, argv, *_), _ = run(project, *words)
        assert argv[-1] == "--help"
        (project / "seen").unlink()


def test_a_process_that_has_other_work_is_not_replaced() -> None:
    with pytest.raises(CommandError, match="takes the place of the process"):
        call_command("reproq_worker")
