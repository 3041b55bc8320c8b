"""The schema: applies and takes back `migrations/NNNN_name.{up,down}.sql`, and tells whether it is there.

The files do the same by themselves (`cat migrations/*.up.sql | psql`): each takes the advisory lock, is
whole or nothing, records its version, and changes nothing where it has been applied. What is added here is
the SHA-256 of each file, so that a file that was changed after it was applied is noticed.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from reproq_prefork.errors import DatabaseUnavailable, ReproqError, SchemaMismatch, SettingsError
from reproq_prefork.settings import Settings
from reproq_prefork.store.connection import (
    MIGRATION_LIMITS,
    ORDINARY_LIMITS,
    ConnectionLost,
    DeadlineConnection,
    StatementRefused,
    TimeLimits,
    ValueRefused,
    connect,
    fetch,
    translated_errors,
)
from reproq_prefork.store.statements import statement

MIN_SERVER_VERSION = 14
MIGRATION_LOCK_TIMEOUT_S = 10
# In an installed package, and in a checkout, where plain SQL stands at the top for whoever runs psql.
MIGRATION_FOLDERS = (
    Path(__file__).parent / "migrations",
    Path(__file__).parent.parent / "migrations",
)

_FILE_NAME = re.compile(r"(?P<version>[0-9]{4})_(?P<name>[a-z0-9_]+)\.up\.sql")


class Direction(enum.Enum):
    UP = "apply"
    DOWN = "take back"


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


@dataclass(frozen=True, slots=True)
class Step:
    """One file to be run."""

    migration: Migration
    direction: Direction


@dataclass(frozen=True, slots=True)
class Applied:
    """What the database says of one migration; `checksum` is None where psql applied it."""

    version: int
    name: str
    checksum: str | None
    applied_at: datetime


@dataclass(frozen=True, slots=True)
class MigrationState:
    """One migration, applied or not, known to this release or not; `changed`: its file is another now."""

    version: int
    name: str
    applied_at: datetime | None
    changed: bool
    known: bool


class MigrationFailed(ReproqError):
    """The server refused one of the files; everything that it had done is undone."""

    def __init__(self, step: Step, reason: str) -> None:
        self.step = step
        super().__init__(
            f"Could not {step.direction.value} migration {step.migration.label}, so the schema is as it was "
            f"before this step: {reason.rstrip('.')}."
        )


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


def plan(
    known: Sequence[Migration], applied: Sequence[Applied], *, to: int | None = None
) -> tuple[Step, ...]:
    """The steps that lead to version `to` (0: an empty database; None: the newest that is known).

    Raises SchemaMismatch where the database is ahead of `known` or was made with other files, and
    SettingsError for a version that there is not.
    """
    newest = known[-1].version
    target = newest if to is None else to
    if target != 0 and target not in {migration.version for migration in known}:
        raise SettingsError([f"--to: there is no version {target}; give one from 0 to {newest}."])
    _refuse_mismatch(known, applied)
    done = {each.version for each in applied}
    up = [Step(each, Direction.UP) for each in known if each.version <= target and each.version not in done]
    down = [
        Step(each, Direction.DOWN)
        for each in reversed(known)
        if each.version > target and each.version in done
    ]
    return (*down, *up)


def _refuse_mismatch(known: Sequence[Migration], applied: Sequence[Applied]) -> None:
    newest = known[-1].version
    found = max((each.version for each in applied), default=None)
    if found is not None and found > newest:
        raise SchemaMismatch(found, newest)
    checksums = {each.version: each.checksum for each in applied}
    changed = [
        migration.label
        for migration in known
        if checksums.get(migration.version) not in (None, migration.checksum)
    ]
    if changed:
        raise SchemaMismatch(found, newest, tampered=changed)


def migrate(
    database_url: str,
    known: Sequence[Migration],
    *,
    to: int | None = None,
    report: Callable[[Step], None] = lambda step: None,
) -> tuple[Step, ...]:
    """Bring the database to version `to`, as `plan` does it; gives the steps that were done here.

    `report` is called after each step, which matters where a later one fails.

    Each step is a transaction, so after an error the database is at the version of the step before. Several
    may do this at the same time: what another has done meanwhile is left out.

    Raises as `plan` does, DatabaseUnavailable, and MigrationFailed.
    """
    with _connected(database_url, MIGRATION_LIMITS) as connection:
        with translated_errors(), connection.transaction():
            steps = plan(known, _lock_and_adopt(connection, known), to=to)
        done = []
        for step in steps:
            with translated_errors(), connection.transaction():
                applied = {each.version for each in _lock_and_adopt(connection, known)}
                is_done = (step.migration.version in applied) == (step.direction is Direction.UP)
                if not is_done:
                    _run(connection, step)
            if not is_done:
                done.append(step)
                report(step)
        return tuple(done)


def pending_steps(
    database_url: str, known: Sequence[Migration], *, to: int | None = None
) -> tuple[Step, ...]:
    """What `migrate` would do; changes nothing, takes no lock. Raises as `plan` does, and DatabaseUnavailable."""
    with _connected(database_url) as connection:
        return plan(known, _applied(connection), to=to)


def migration_states(database_url: str, known: Sequence[Migration]) -> tuple[MigrationState, ...]:
    """Every migration that this release or the database knows, in order. Raises DatabaseUnavailable."""
    with _connected(database_url) as connection:
        applied = {each.version: each for each in _applied(connection)}
    shipped = {each.version: each for each in known}
    return tuple(
        _state(shipped.get(version), applied.get(version)) for version in sorted(shipped.keys() | applied)
    )


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


def check_database(settings: Settings) -> None:
    """The server can be worked with, and has this release's schema.

    Raises SettingsError, DatabaseUnavailable or SchemaMismatch.
    """
    with _connected(settings.require_database_url()) as connection:
        check_schema(connection)


def check_schema(connection: DeadlineConnection) -> None:
    """Raises SchemaMismatch where the schema is absent, older or newer than this release needs."""
    needed = known_migrations()[-1].version
    found = max((each.version for each in _applied(connection)), default=None)
    if found != needed:
        raise SchemaMismatch(found, needed)


@contextmanager
def _connected(database_url: str, limits: TimeLimits = ORDINARY_LIMITS) -> Iterator[DeadlineConnection]:
    """A connection to a server that can be worked with; what it refuses there makes it unusable."""
    connection = connect(database_url, application_name="reproq-prefork migrate", limits=limits)
    with closing(connection):
        info = connection.info
        address = f"{info.dbname} at {info.host}:{info.port}"
        try:
            facts = _ask(connection, "server_facts")[0]
            reason = why_unusable(
                facts.version, facts.version_number, facts.is_standby, read_only=facts.is_read_only
            )
            if reason:
                raise DatabaseUnavailable(address, reason)
            yield connection
        except (ConnectionLost, StatementRefused) as error:
            raise DatabaseUnavailable(address, str(error)) from error


def why_unusable(version: str, version_number: int, is_standby: bool, *, read_only: bool) -> str:
    """Why nothing can be done with such a server; empty where it will do."""
    if version_number < MIN_SERVER_VERSION * 10_000:
        return f"it runs PostgreSQL {version}, and version {MIN_SERVER_VERSION} or newer is needed"
    if is_standby:
        return "it is a hot standby, which cannot be written to; name the primary"
    if read_only:
        return "it refuses to write, since default_transaction_read_only is on"
    return ""


def _lock_and_adopt(connection: DeadlineConnection, known: Sequence[Migration]) -> tuple[Applied, ...]:
    _ask(connection, "lock_migrations")
    applied = _applied(connection)
    checksums = {each.version: each.checksum for each in known}
    for each in applied:
        if each.checksum is None and each.version in checksums:
            _ask(connection, "record_checksum", version=each.version, checksum=checksums[each.version])
    return applied


def _run(connection: DeadlineConnection, step: Step) -> None:
    _ask(connection, "limit_lock_wait", lock_timeout=f"{MIGRATION_LOCK_TIMEOUT_S}s")
    migration = step.migration
    file_text = migration.up if step.direction is Direction.UP else migration.down
    try:
        with translated_errors():
            # As bytes and unprepared it goes to the server as it stands, like psql sends it.
            connection.execute(file_text.encode(), prepare=False)
    except (StatementRefused, ValueRefused) as error:
        raise MigrationFailed(step, str(error)) from error
    if step.direction is Direction.UP:
        _ask(connection, "record_checksum", version=migration.version, checksum=migration.checksum)


def _applied(connection: DeadlineConnection) -> tuple[Applied, ...]:
    if not _ask(connection, "has_schema")[0].has_schema:
        return ()
    return tuple(
        Applied(row.version, row.name, row.checksum, row.applied_at)
        for row in _ask(connection, "applied_migrations")
    )


def _ask(connection: DeadlineConnection, name: str, **parameters: Any) -> Sequence[Any]:
    bound: Mapping[str, Any] = parameters
    return fetch(connection, statement(name), bound)
