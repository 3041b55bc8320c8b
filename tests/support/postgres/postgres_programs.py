"""pg_dump, pg_restore and psql that fit a server: of its major version where there are some, else newer ones."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from reproq_prefork.demo.postgres_programs import EmbeddedMissing, PostgresPrograms

TIMEOUT_S = 60


def programs_for(database_url: str) -> Path:
    """The directory that has them; skips the test where there is none."""
    with psycopg.connect(database_url) as connection:
        major = connection.info.server_version // 10_000
    fitting = sorted((version, directory) for version, directory in _installed() if version >= major)
    if not fitting:
        pytest.skip(f"no pg_dump of PostgreSQL {major} or newer is on this machine")
    return fitting[0][1]


def _installed() -> Iterator[tuple[int, Path]]:
    """Major versions, and where their programs are."""
    for major in (16, 18):
        try:
            yield major, PostgresPrograms(major).directory
        except EmbeddedMissing:
            break
    found = shutil.which("pg_dump")
    if found is not None:
        shown = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
        version = re.search(r"\) (\d+)", shown.stdout)
        if version is not None:
            yield int(version[1]), Path(found).parent


def run_program(
    directory: Path, name: str, *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[str]:
    """Run one of them to its end, whatever its exit status."""
    done = subprocess.run(
        [directory / name, *arguments],
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
