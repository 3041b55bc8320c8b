"""What the process got when it started. The settings are made from it, and made again at each reload."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from reproq_prefork.cli.printing import complain
from reproq_prefork.errors import DatabaseUnavailable, SettingsError
from reproq_prefork.settings import Settings
from reproq_prefork.settings.django_project import with_django
from reproq_prefork.settings.files import read_sources
from reproq_prefork.settings.resolve import Resolved, resolve
from reproq_prefork.settings.sources import FlagValue
from reproq_prefork.store.migrate import check_schema
from reproq_prefork.store.operator_store import OperatorStore
from reproq_prefork.store.outcomes import ConnectionLost


@dataclass(frozen=True, slots=True)
class Invocation:
    """The environment, the directory, the time and the host, as they were at the start.

    They are kept so that a reload gives the same values, unless somebody has set others: the default name of the
    worker contains the time of the start.
    """

    environ: Mapping[str, str]
    directory: Path
    started_at: datetime
    hostname: str
    cpu_count: int

    @classmethod
    def of_this_process(cls, environ: Mapping[str, str]) -> Invocation:
        """Raises SettingsError if the current directory is gone."""
        try:
            directory = Path.cwd()
        except FileNotFoundError:
            raise SettingsError(
                ["The current directory does not exist any more; change to another one first."]
            ) from None
        return cls(
            environ=dict(environ),
            directory=directory,
            started_at=datetime.now(UTC),
            hostname=socket.gethostname(),
            cpu_count=len(os.sched_getaffinity(0)),
        )

    def resolve(self, flags: Mapping[str, FlagValue]) -> Resolved:
        """The settings, with the files as they are now. Raises SettingsError."""
        return resolve(
            read_sources(flags, self.environ, cwd=self.directory),
            hostname=self.hostname,
            now=self.started_at,
            cpu_count=self.cpu_count,
        )

    def settings(self, flags: Mapping[str, FlagValue]) -> Settings:
        """The settings of a command. Its warnings go to standard error, its paths start at `--chdir`."""
        resolved = self.resolve(flags)
        for warning in resolved.warnings:
            complain(f"warning: {warning}")
        settings = with_django(resolved.settings)
        try:
            # libpq resolves relative certificate paths of a database URL from the current directory.
            os.chdir(settings.chdir)
        except OSError as error:
            raise SettingsError([f"--chdir: cannot change to {settings.chdir}: {error.strerror}"]) from None
        return settings


@contextmanager
def opened_store(settings: Settings, *, for_writing: bool = True) -> Iterator[OperatorStore]:
    """The database, with the schema that this release needs. `for_writing` False: a standby will do.

    Raises SettingsError, DatabaseUnavailable (also if the connection breaks later) or SchemaMismatch.
    """
    with closing(OperatorStore(settings.require_database_url(), for_writing=for_writing)) as store:
        info = store.connection.info
        try:
            check_schema(store.connection, django=settings.django_settings is not None)
            yield store
        except ConnectionLost as error:
            address = f"{info.dbname} at {info.host}:{info.port}"
            raise DatabaseUnavailable(address, str(error)) from error
