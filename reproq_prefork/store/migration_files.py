"""The migration files: `NNNN_name.up.sql`, and `NNNN_name.down.sql`, which takes it back."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# In an installed package; in a checkout, where the plain SQL is at the top level for users of psql.
MIGRATION_FOLDERS = (
    Path(__file__).parents[1] / "migrations",
    Path(__file__).parents[2] / "migrations",
)

# What makes a database forget rows or values. Functions, indexes and checks can be made again.
_DROPS_DATA = re.compile(r"^[^-\n]*\b(?:drop\s+(?:table|column)|truncate)\b", re.IGNORECASE | re.MULTILINE)
_FILE_NAME = re.compile(r"(?P<version>[0-9]{4})_(?P<name>[a-z0-9_]+)\.up\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One pair of files, as text. `checksum` is the SHA-256 of the `.up.sql` file."""

    version: int
    name: str
    up: str
    down: str
    checksum: str

    @property
    def label(self) -> str:
        return f"{self.version:04}_{self.name}"

    @property
    def drops_data(self) -> bool:
        """Whether taking it back drops a table or a column, with what is in it."""
        return _DROPS_DATA.search(self.down) is not None


def known_migrations(folders: Sequence[Path] = MIGRATION_FOLDERS) -> tuple[Migration, ...]:
    """The migrations that this release ships, in order, from the first folder that has any."""
    for folder in folders:
        found = sorted(path for path in folder.glob("*.up.sql") if _FILE_NAME.fullmatch(path.name))
        if found:
            return tuple(_read(path) for path in found)
    raise FileNotFoundError(
        f"no migrations are in {' or '.join(map(str, folders))}: this installation is incomplete"
    )


def _read(path: Path) -> Migration:
    match = _FILE_NAME.fullmatch(path.name)
    assert match is not None
    up = path.read_bytes()
    down = path.with_name(path.name.replace(".up.sql", ".down.sql")).read_text(encoding="utf-8")
    return Migration(int(match["version"]), match["name"], up.decode(), down, hashlib.sha256(up).hexdigest())
