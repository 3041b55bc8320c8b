"""Exit statuses, and the errors that end a command with one of them.

An error is a sentence for the person who can act: what was tried, what was found, what to do. Its constructor
takes plain values and writes the sentence, so it is the same wherever the error is raised. Only the command line
turns an error into an exit status; every other part raises.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import Any


class ExitStatus(enum.IntEnum):
    """The status that the process returns to the shell, systemd or Kubernetes. `description` is for the docs."""

    description: str

    def __new__(cls, value: int, description: str) -> ExitStatus:
        member = int.__new__(cls, value)
        member._value_ = value
        member.description = description
        return member

    OK = 0, "Done, or stopped as asked."
    FAILURE = 1, "Something unexpected failed; the log says what."
    # click ends with 2 on an unknown option, so a bad value of a known one does too.
    USAGE = 2, "An argument or a setting is wrong or missing; nothing was started."
    BOOT_FAILED = 3, "The workers cannot boot: each one died or hung before it was ready."
    NOT_FOUND = 4, "There is no such task run."
    CONFLICT = 5, "The unique key is held by a run that has not finished, or the run to cancel has finished."
    DATABASE_UNAVAILABLE = 6, "The database cannot be reached, or refuses to work."
    SCHEMA_MISMATCH = 7, "The schema in the database is not the one that this release works with."
    ALREADY_RUNNING = 8, "The pid file names a master that is alive."
    LEASE_LOST = 9, "A worker's own status: it lost its lease and stopped; its master replaces it."
    DATABASE_IS_COPY = (
        10,
        "The database is a copy of another one, and was not adopted (`reproq-prefork adopt`).",
    )
    NOT_PRINTED = 11, "It is done and committed, but could not be printed: do not repeat it."


class ReproqError(Exception):
    """The base of every error that this package raises on purpose; `str(error)` is its sentence."""

    exit_status: ExitStatus = ExitStatus.FAILURE

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors are sent from a child to its parent (a check runs in a child). BaseException would rebuild them by
        # calling the constructor with the finished sentence, so they are rebuilt without calling it.
        return _rebuild, (type(self), self.args), self.__dict__.copy()


def _rebuild(cls: type[ReproqError], args: tuple[object, ...]) -> ReproqError:
    return cls.__new__(cls, *args)


class SettingsError(ReproqError):
    """One or more settings are wrong or missing; `problems` holds a sentence for each."""

    exit_status = ExitStatus.USAGE

    def __init__(self, problems: Sequence[str]) -> None:
        if not problems:
            raise ValueError("a SettingsError needs at least one problem")
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class DatabaseUnavailable(ReproqError):
    """The server did not answer, or refused. `address` must not hold a password (see `redact.mask_url`)."""

    exit_status = ExitStatus.DATABASE_UNAVAILABLE

    def __init__(self, address: str, reason: str) -> None:
        self.address = address
        self.reason = reason
        super().__init__(
            f"The database {address} cannot be used: {reason.strip().rstrip('.')}. {_cure(reason)}"
        )


# What libpq and the server say, and what to do. A server may use another language; then the last row is true too.
_CURES = (
    (
        ("Connection refused", "No such file or directory"),
        "No server listens there: start it, or correct host and port in DATABASE_URL or the Django project.",
    ),
    (
        ("cannot be resolved", "could not translate host name"),
        "Correct the host in DATABASE_URL or the Django project, or make its name known to this machine.",
    ),
    (
        ("password authentication failed", "no password supplied"),
        "Correct the user and the password in DATABASE_URL or the Django project.",
    ),
    (
        ("no pg_hba.conf entry",),
        "Let this user connect from this host to this database, in the server's pg_hba.conf.",
    ),
    (
        ("no answer from this address", "timeout expired", "No route to host", "Network is unreachable"),
        "Check host and port in DATABASE_URL or the Django project, and that no firewall is in between.",
    ),
    (
        ("too many clients", "remaining connection slots", "too many connections"),
        "Raise max_connections of the server or the limit of this login, or use fewer workers.",
    ),
    (
        (),
        "Check that it runs, that DATABASE_URL or the Django project names it, and that this host may connect.",
    ),
)
_MISSING = re.compile(r'(?:database|role) ".*" does not exist')


def _cure(reason: str) -> str:
    if _MISSING.search(reason):
        return "Create it on the server, or correct its name in DATABASE_URL or the Django project."
    return next(cure for signs, cure in _CURES if not signs or any(sign in reason for sign in signs))


class DatabaseIsCopy(DatabaseUnavailable):
    """The database is a copy of another one, and nobody has said what to do with the runs that came with it.

    `original` and `copy` say which database each is. A process that connects again treats it as unavailable.
    """

    exit_status = ExitStatus.DATABASE_IS_COPY

    def __init__(self, address: str, original: str, copy: str) -> None:
        super().__init__(address, f"it is a copy of {original}")
        self.original = original
        self.copy = copy
        self.args = (
            f"The database {address} is a copy: its runs came from {original}, and it is {copy}. "
            "No run is started here until you say what to do with them. To run them here, as after a restore or a "
            "move: `reproq-prefork adopt --keep-unfinished`. To cancel them, as for staging: "
            "`reproq-prefork adopt --cancel-unfinished`.",
        )


class SchemaMismatch(ReproqError):
    """The schema is missing, older or newer than this release needs, or (`tampered`) not the one that was shipped.

    `found` is the version in the database, None if there is no schema. `needed` is the version of this release.
    """

    exit_status = ExitStatus.SCHEMA_MISMATCH

    def __init__(
        self,
        found: int | None,
        needed: int,
        tampered: Sequence[str] = (),
        *,
        database: str = "",
        search_path: str = "",
        elsewhere: Sequence[str] = (),
        migrate: str = "reproq-prefork migrate",
    ) -> None:
        """If there is no schema: `search_path` says where it was looked for, and `elsewhere` which other
        schemas of the database have one. `migrate` is the command that makes the schema.
        """
        self.found = found
        self.needed = needed
        self.tampered = tuple(tampered)
        self.database = database
        self.search_path = search_path
        self.elsewhere = tuple(elsewhere)
        self.migrate = migrate
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        if self.tampered:
            return (
                "The database was migrated with other files than those of this release: "
                f"{', '.join(self.tampered)}. Install the release that made the schema, or restore the files."
            )
        if self.found is None:
            return self._nothing_found()
        if self.found < self.needed:
            return (
                f"The database has schema version {self.found}; this release needs version {self.needed}. "
                f"Run `{self.migrate}`."
            )
        return (
            f"The database has schema version {self.found}; this release knows up to {self.needed}. "
            "Install a newer release of reproq-prefork here."
        )

    def _nothing_found(self) -> str:
        name = f" {self.database}" if self.database else ""
        path = f" in its search path ({self.search_path})" if self.search_path else ""
        sentence = f"The database{name} has no reproq schema{path}; this release needs version {self.needed}."
        if not self.elsewhere:
            return f"{sentence} Run `{self.migrate}`."
        return (
            f"{sentence} There is one in the schema {' and in '.join(self.elsewhere)}: set the search path of "
            f"this login to it (`alter role … set search_path = {self.elsewhere[0]}`, or options=-csearch_path="
            f"{self.elsewhere[0]} in the address), or run `{self.migrate}` to make another one."
        )


class UnknownStatus(SchemaMismatch):
    """A run has a status that this release does not know, although it works with this schema."""

    def __init__(self, run_id: int, status: str) -> None:
        super().__init__(None, 0)
        self.run_id = run_id
        self.status = status
        self.args = (
            f"Run {run_id} has the status {status[:40]!r}, which this release does not know. Use the release that "
            "wrote it, or correct the status by SQL.",
        )


class RunNotFound(ReproqError):
    """No run has this id, or this spec hash. Exactly one of the two is given."""

    exit_status = ExitStatus.NOT_FOUND

    def __init__(self, *, run_id: int | None = None, spec_hash: str | None = None) -> None:
        if (run_id is None) == (spec_hash is None):
            raise ValueError("RunNotFound names either a run_id or a spec_hash, not both")
        self.run_id = run_id
        self.spec_hash = spec_hash
        wanted = f"the id {run_id}" if spec_hash is None else f"the spec hash {spec_hash}"
        super().__init__(
            f"No task run has {wanted} in this database. It may have been pruned, or be in another database."
        )


class UniqueKeyHeld(ReproqError):
    """A run that is PENDING or RUNNING holds the unique key; `run_id` says which."""

    exit_status = ExitStatus.CONFLICT

    def __init__(self, key: str, run_id: int) -> None:
        self.key = key
        self.run_id = run_id
        super().__init__(
            f'The unique key "{key}" is held by run {run_id}, which has not finished. '
            f"Wait until it has: `reproq-prefork show {run_id}` shows its state."
        )


class AlreadyRunning(ReproqError):
    """The pid file names a live master. Two masters must not share a pid file."""

    exit_status = ExitStatus.ALREADY_RUNNING

    def __init__(self, pid: int, pid_file: str) -> None:
        self.pid = pid
        self.pid_file = pid_file
        super().__init__(
            f"The pid file {pid_file} says that a master is already running as process {pid}. "
            "Stop it first, or give this one another --pid-file."
        )
