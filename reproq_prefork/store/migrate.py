"""The schema: applies and takes back migrations, and checks whether a database has them.

The files alone do the same (`cat migrations/*.up.sql | psql`). Each takes the advisory lock, takes effect as a
whole or not at all, records its version, and changes nothing if it has already been applied. This module adds the
SHA-256 of each file, so that a change to a file after it was applied is noticed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import psycopg

from reproq_prefork.errors import DatabaseUnavailable, ExitStatus, ReproqError, SchemaMismatch
from reproq_prefork.model.identity import KnownServer
from reproq_prefork.settings import Settings
from reproq_prefork.store.connection import (
    MIGRATION_LIMITS,
    ORDINARY_LIMITS,
    TimeLimits,
    connect,
    longest_connect_s,
)
from reproq_prefork.store.copies import refuse_copy
from reproq_prefork.store.deadline import DeadlineConnection
from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.migration_files import Migration, known_migrations
from reproq_prefork.store.migration_plan import Applied, Direction, MigrationState, Step, plan, states
from reproq_prefork.store.outcomes import ConnectionLost, StatementRefused, ValueRefused, translated_errors
from reproq_prefork.store.statements import statement

MIGRATION_LOCK_TIMEOUT_S = 10
MIGRATE, MIGRATE_OF_DJANGO = "reproq-prefork migrate", "manage.py migrate"
CATALOG = "pg_catalog"  # our sessions name it first


class MigrationFailed(ReproqError):
    """The server refused one of the files. Everything that the file had done is undone."""

    def __init__(self, step: Step, reason: str) -> None:
        self.step = step
        super().__init__(
            f"Could not {step.direction.value} migration {step.migration.label}, so the schema is as it was "
            f"before this step: {reason.rstrip('.')}."
        )


class RightsMissing(ReproqError):
    """The login of DATABASE_URL may not do what workers do. `rights` says what is missing, as in GRANT."""

    exit_status = ExitStatus.DATABASE_UNAVAILABLE

    def __init__(self, login: str, rights: Sequence[str]) -> None:
        self.login = login
        self.rights = tuple(rights)
        super().__init__(
            f"The database login {login} lacks the right of {', '.join(rights)}: make it a member of the role "
            "reproq_worker, or work as the owner of the tables."
        )


def migrate(
    database_url: str,
    known: Sequence[Migration],
    *,
    to: int | None = None,
    report: Callable[[Step], None] = lambda step: None,
    remark: Callable[[str], None] = lambda text: None,
) -> tuple[Step, ...]:
    """Bring the database to version `to`, with the steps of `plan`. Returns the steps that this call did.

    `report` is called after each step, which matters if a later one fails. `remark` gets what a file tells the
    person who migrates, such as something it could not do.

    Each step is a transaction, so after an error the database has the version of the step before. Several
    processes may migrate at the same time: a step that another one has done meanwhile is left out.

    Raises as `plan` does, DatabaseUnavailable, and MigrationFailed.
    """
    with _connected(database_url, MIGRATION_LIMITS) as connection:
        connection.add_notice_handler(partial(_pass_on, remark))
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


def _pass_on(remark: Callable[[str], None], notice: psycopg.errors.Diagnostic) -> None:
    """Notices of our files have a hint. Those of the server only name things that were not there to be dropped."""
    if notice.message_hint:
        remark(f"{notice.message_primary}. {notice.message_hint}")


def pending_steps(
    database_url: str, known: Sequence[Migration], *, to: int | None = None
) -> tuple[Step, ...]:
    """What `migrate` would do. Changes nothing, takes no lock. Raises as `plan` does, and DatabaseUnavailable."""
    with _connected(database_url, for_writing=False) as connection:
        return plan(known, _applied(connection), to=to)


def migration_states(database_url: str, known: Sequence[Migration]) -> tuple[MigrationState, ...]:
    """Every migration that this release or the database knows, in order. Raises DatabaseUnavailable."""
    with _connected(database_url, for_writing=False) as connection:
        return states(known, _applied(connection))


def check_database(settings: Settings) -> KnownServer:
    """Check that the server can be used, has this release's schema, and lets us do what workers do.

    Returns which server it is. Raises SettingsError, DatabaseUnavailable, SchemaMismatch, DatabaseIsCopy or
    RightsMissing.
    """
    database_url = settings.require_database_url()
    with _connected(database_url, asks_system=True) as connection:
        check_schema(connection, django=settings.django_settings is not None)
        refuse_copy(connection)
        missing = _ask(connection, "missing_rights")
        if missing:
            raise RightsMissing(missing[0].login, [f"{row.privilege} on {row.relation}" for row in missing])
        return KnownServer(connection.server.system, longest_connect_s(database_url))


def check_schema(connection: psycopg.Connection[Any], *, django: bool = False) -> None:
    """Raises SchemaMismatch if the schema is missing, is older, was made with other files, or is newer and works
    only with newer releases. `django`: the application's own command makes the schema.
    """
    missing = plan(known_migrations(), _applied(connection))
    if missing:
        before = missing[0].migration.version - 1
        needed = known_migrations()[-1].version
        command = MIGRATE_OF_DJANGO if django else MIGRATE
        if before:
            raise SchemaMismatch(before, needed, migrate=command)
        (places,) = _ask(connection, "schema_places")
        raise SchemaMismatch(
            None,
            needed,
            database=places.database,
            search_path=places.search_path.removeprefix(f"{CATALOG}, "),
            elsewhere=json.loads(places.elsewhere),
            migrate=command,
        )


@contextmanager
def _connected(
    database_url: str,
    limits: TimeLimits = ORDINARY_LIMITS,
    *,
    for_writing: bool = True,
    asks_system: bool = False,
) -> Iterator[DeadlineConnection]:
    """A connection to a usable server. If the server refuses a statement in the block, it is unavailable."""
    connection = connect(
        database_url,
        application_name="reproq-prefork migrate",
        limits=limits,
        for_writing=for_writing,
        makes_schema=True,
        asks_system=asks_system,
    )
    with closing(connection):
        info = connection.info
        address = f"{info.dbname} at {info.host}:{info.port}"
        try:
            yield connection
        except (ConnectionLost, StatementRefused) as error:
            raise DatabaseUnavailable(address, str(error)) from error


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
            # As bytes and unprepared, the file goes to the server unchanged, as psql sends it.
            connection.execute(file_text.encode(), prepare=False)
    except (StatementRefused, ValueRefused) as error:
        raise MigrationFailed(step, str(error)) from error
    if step.direction is Direction.UP:
        _ask(connection, "record_checksum", version=migration.version, checksum=migration.checksum)


def _applied(connection: psycopg.Connection[Any]) -> tuple[Applied, ...]:
    if not _ask(connection, "has_schema")[0].has_schema:
        return ()
    return tuple(
        Applied(row.version, row.name, row.checksum, row.applied_at, row.works_with_since)
        for row in _ask(connection, "applied_migrations")
    )


def _ask(connection: psycopg.Connection[Any], name: str, **parameters: Any) -> Sequence[Any]:
    return fetch(connection, statement(name), parameters)
