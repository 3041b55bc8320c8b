"""Another release beside this one: the same code with one migration more, as an install of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import reproq_prefork
from reproq_prefork.store.migration_files import known_migrations
from tests.support.postgres.databases import MIGRATIONS

NEWEST = known_migrations()[-1].version
COMMAND_TIMEOUT_S = 30.0

_UP = """
do $migration$
begin
    perform pg_advisory_xact_lock(7238251986031521);
    if exists (select from reproq_schema_migrations where version = {version}) then
        return;
    end if;
    alter table reproq_schema_migrations add column if not exists works_with_since integer;
    {change};
    insert into reproq_schema_migrations (version, name, works_with_since)
    values ({version}, 'later', {works_with_since});
end
$migration$;
"""


class LaterRelease:
    """What comes after this release: `change` is made to the schema, and `edits` to the statements, by file."""

    version = "999.0"

    def __init__(
        self,
        directory: Path,
        *,
        change: str,
        works_with_since: int | None,
        edits: Mapping[str, tuple[str, str]],
    ) -> None:
        source = Path(reproq_prefork.__file__).parent
        package = directory / source.name
        shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
        migrations = directory / MIGRATIONS.name
        shutil.copytree(MIGRATIONS, migrations)
        since = "null" if works_with_since is None else str(works_with_since)
        up = _UP.format(version=NEWEST + 1, change=change, works_with_since=since)
        (migrations / f"{NEWEST + 1:04}_later.up.sql").write_text(up)
        (migrations / f"{NEWEST + 1:04}_later.down.sql").touch()
        _edit(package / "__init__.py", reproq_prefork.__version__, self.version)
        for name, (old, new) in edits.items():
            (file,) = (package / "store" / "sql").rglob(f"{name}.sql")
            _edit(file, old, new)
        self.environ = {"PYTHONPATH": str(directory)}


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path.name} has no {old!r} any more"
    path.write_text(text.replace(old, new))


def run_command(
    database_url: str, *arguments: str, release: LaterRelease | None = None
) -> subprocess.CompletedProcess[str]:
    """`reproq-prefork ARGUMENTS` of a later release, or of this one."""
    return subprocess.run(
        [sys.executable, "-m", "reproq_prefork", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "DATABASE_URL": database_url,
            "EXECUTOR_COMMAND": "true",
            "REPROQ_ENV_FILE": "",
            **(release.environ if release else {}),
        },
        cwd="/",
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )
