"""Which migration files to run, given those that a database already has. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from reproq_prefork.errors import SchemaMismatch, SettingsError
from reproq_prefork.store.migration_files import Migration


class Direction(enum.Enum):
    UP = "apply"
    DOWN = "take back"


@dataclass(frozen=True, slots=True)
class Step:
    """One file to run."""

    migration: Migration
    direction: Direction


@dataclass(frozen=True, slots=True)
class Applied:
    """What the database says about one migration. `checksum` is None if psql applied it.

    `works_with_since`: the oldest version whose release still works after this migration; None: no older release
    does.
    """

    version: int
    name: str
    checksum: str | None
    applied_at: datetime
    works_with_since: int | None = None


@dataclass(frozen=True, slots=True)
class MigrationState:
    """One migration, applied or not, known to this release or not. `changed`: its file is different now."""

    version: int
    name: str
    applied_at: datetime | None
    changed: bool
    known: bool


def plan(
    known: Sequence[Migration], applied: Sequence[Applied], *, to: int | None = None
) -> tuple[Step, ...]:
    """The steps that lead to version `to` (0: an empty database; None: the version that this release works with).

    Raises SchemaMismatch if the database is ahead of `known` or was made with other files, and SettingsError if
    there is no such version. If `to` is None and every unknown migration says that this release works with it,
    being ahead is not a mismatch: then there are no steps.
    """
    newest = known[-1].version
    target = newest if to is None else to
    if target != 0 and target not in {migration.version for migration in known}:
        raise SettingsError([f"--to: there is no version {target}; give one from 0 to {newest}."])
    _refuse_mismatch(known, applied, may_be_ahead=to is None)
    done = {each.version for each in applied}
    up = [Step(each, Direction.UP) for each in known if each.version <= target and each.version not in done]
    down = [
        Step(each, Direction.DOWN)
        for each in reversed(known)
        if each.version > target and each.version in done
    ]
    return (*down, *up)


def _refuse_mismatch(known: Sequence[Migration], applied: Sequence[Applied], *, may_be_ahead: bool) -> None:
    newest = known[-1].version
    found = max((each.version for each in applied), default=None)
    newer = [each for each in applied if each.version > newest]
    if newer and not (may_be_ahead and all(_works_with(each, newest) for each in newer)):
        raise SchemaMismatch(found, newest)
    checksums = {each.version: each.checksum for each in applied}
    changed = [
        migration.label
        for migration in known
        if checksums.get(migration.version) not in (None, migration.checksum)
    ]
    if changed:
        raise SchemaMismatch(found, newest, tampered=changed)


def _works_with(newer: Applied, version: int) -> bool:
    return newer.works_with_since is not None and newer.works_with_since <= version


def states(known: Sequence[Migration], applied: Sequence[Applied]) -> tuple[MigrationState, ...]:
    """Every migration that this release or the database knows, in order."""
    shipped = {each.version: each for each in known}
    done = {each.version: each for each in applied}
    return tuple(_state(shipped.get(version), done.get(version)) for version in sorted(shipped.keys() | done))


def _state(shipped: Migration | None, applied: Applied | None) -> MigrationState:
    either = shipped or applied
    assert either is not None
    return MigrationState(
        version=either.version,
        name=either.name,
        applied_at=None if applied is None else applied.applied_at,
        changed=bool(shipped and applied and applied.checksum not in (None, shipped.checksum)),
        known=shipped is not None,
    )
