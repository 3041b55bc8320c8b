"""The pytest fixture of `reproq_prefork.testing`, in a test suite of a project's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.checkout import CHECKOUT

CONFTEST = """
import django
django.setup()
pytest_plugins = ["reproq_prefork.testing"]
"""
SUITE = """
from reproq_prefork.django.testing import assert_enqueued
from tests.django.app.tasks import add

def test_a_task_of_the_project(run_tasks):
    result = add.enqueue(1, 2)
    assert_enqueued(add, args=[1, 2])
    assert [done.return_value for done in run_tasks()] == [3]
    result.refresh()
    assert result.is_finished
"""


def test_a_project_that_names_the_plugin_has_the_fixture(django_database: str, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_project.py").write_text(SUITE)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(tmp_path),
            str(tmp_path),
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "DATABASE_URL": django_database,
            "DJANGO_SETTINGS_MODULE": "tests.django.settings",
            "PYTHONPATH": str(CHECKOUT),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
