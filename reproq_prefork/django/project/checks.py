"""Finds mistakes in an entry of `TASKS`: `manage.py check` reports them before anything is enqueued.

Nothing here uses a database: `schema_check` does. The rules for values are those of `enqueue`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning
from django.db import connections, router

from reproq_prefork.model.new_run import InvalidRun, NewRun
from reproq_prefork.text.printable import quoted

APP = "reproq_prefork.django"
MODES = ("immediate",)

# Options that take the values of an argument of `enqueue`.
_ENQUEUE_ARGUMENTS = {
    "max_attempts": "max_attempts",
    "timeout": "timeout_seconds",
    "retry_base": "retry_base_seconds",
    "retry_max": "retry_max_seconds",
    "executor": "executor",
}
KNOWN_OPTIONS = ("database", "mode", "allowed_task_modules", "atomic", "unique", *_ENQUEUE_ARGUMENTS)


class CheckedBackend(Protocol):
    """What every backend has, in Django and in the backport."""

    alias: str
    queues: set[str]
    options: Any  # a dictionary, unless the settings are wrong


def check_backend(backend: CheckedBackend) -> list[CheckMessage]:
    """All mistakes in this backend's entry, the worst first."""
    return list(_check_backend(backend))


def _check_backend(backend: CheckedBackend) -> Iterator[CheckMessage]:
    where = f'TASKS["{backend.alias}"]'
    yield from _queues(where, backend.queues)
    if not isinstance(backend.options, Mapping):
        yield Error(f"{where}: OPTIONS must be a dictionary.", id="reproq_prefork.E001")
        return
    yield from _options(where, backend.options)
    if not apps.is_installed(APP):
        yield Error(
            f'{where} needs "{APP}" in INSTALLED_APPS.',
            hint=f'Add "{APP}" there: it contains the models, the migrations and `manage.py reproq_worker`.',
            id="reproq_prefork.E004",
        )
        return
    yield from _database(where, backend.options)


def _options(where: str, options: Mapping[str, Any]) -> Iterator[CheckMessage]:
    for name in options:
        if name not in KNOWN_OPTIONS:
            close = difflib.get_close_matches(str(name).lower(), KNOWN_OPTIONS, n=1)
            hint = f'Did you mean "{close[0]}"?' if close else f"The keys are {', '.join(KNOWN_OPTIONS)}."
            yield Error(
                f"{where}: OPTIONS has an unknown key {quoted(str(name))}.",
                hint=hint,
                id="reproq_prefork.E002",
            )
    for name in _ENQUEUE_ARGUMENTS.keys() & options.keys():
        yield from _value(where, name, options[name])
    base, longest = options.get("retry_base"), options.get("retry_max")
    if isinstance(base, (int, float)) and isinstance(longest, (int, float)) and base > longest:
        yield _wrong_value(where, f"retry_base, {base}, is longer than retry_max, {longest}.")
    mode = options.get("mode")
    if mode is not None and mode not in MODES:
        yield _wrong_value(where, f"mode must be one of {', '.join(MODES)}, or left out, not {mode!r}.")


def _value(where: str, name: str, value: Any) -> Iterator[CheckMessage]:
    argument = _ENQUEUE_ARGUMENTS[name]
    try:
        NewRun.of({}, **{argument: value})
    except InvalidRun as error:
        yield _wrong_value(where, str(error).replace(argument, name, 1))


def _wrong_value(where: str, why: str) -> CheckMessage:
    return Error(f"{where}: OPTIONS: {why}", id="reproq_prefork.E003")


def _queues(where: str, queues: Iterable[str]) -> Iterator[CheckMessage]:
    for name in sorted(queues, key=str):
        try:
            NewRun.of({}, queue_name=name)
        except InvalidRun as error:
            yield Error(
                f"{where}: QUEUES: {str(error).replace('queue_name', 'a queue', 1)}", id="reproq_prefork.E005"
            )


def _database(where: str, options: Mapping[str, Any]) -> Iterator[CheckMessage]:
    from reproq_prefork.django.project.database import database_alias

    alias = database_alias(options)
    if alias not in connections.settings:
        close = difflib.get_close_matches(alias, connections.settings, n=1)
        hint = f'Did you mean "{close[0]}"?' if close else "Give one of the names in DATABASES."
        yield Error(
            f"{where}: there is no database {quoted(alias)} in DATABASES.",
            hint=hint,
            id="reproq_prefork.E006",
        )
        return
    vendor = getattr(connections[alias], "vendor", "unknown")
    if vendor != "postgresql":
        yield Error(
            f'{where}: the database "{alias}" is {vendor}, and task runs need PostgreSQL.',
            hint='Name a PostgreSQL database: "OPTIONS": {"database": "…"}.',
            id="reproq_prefork.E007",
        )
        return
    if not _uses_psycopg3():
        yield Error(
            f'{where}: Django uses psycopg2 for the database "{alias}", and task runs need psycopg 3.',
            hint="Run `pip install 'psycopg[binary]>=3.2.4'`. Django then uses it instead of psycopg2.",
            id="reproq_prefork.E008",
        )
        return
    yield from _routers(where, alias)
    yield from _transactions(where, alias)


def _uses_psycopg3() -> bool:
    from django.db.backends.postgresql.psycopg_any import is_psycopg3

    return bool(is_psycopg3)


def _routers(where: str, alias: str) -> Iterator[CheckMessage]:
    model = apps.get_model("reproq_prefork", "TaskRun")
    if not router.allow_migrate(alias, "reproq_prefork", model_name="taskrun", model=model):
        yield Error(
            f'{where}: a database router keeps the tables of reproq_prefork out of the database "{alias}".',
            hint='Let allow_migrate() return True there for the app label "reproq_prefork".',
            id="reproq_prefork.E009",
        )
    elsewhere = {
        chosen
        for each in router.routers
        for name in ("db_for_read", "db_for_write")
        if (method := getattr(each, name, None)) and (chosen := method(model)) not in (None, alias)
    }
    if elsewhere:
        yield Warning(
            f'{where}: its runs are in the database "{alias}", and a database router sends the model TaskRun to '
            f"{', '.join(sorted(map(quoted, elsewhere)))}.",
            hint="Let the router name the same database as OPTIONS, or None for this app.",
            id="reproq_prefork.W002",
        )


def _transactions(where: str, alias: str) -> Iterator[CheckMessage]:
    """If requests are transactions (ATOMIC_REQUESTS) in the database of the runs, a run is saved only if its
    request commits, as it should be. In another database the run is saved at once, and a worker may look for rows
    that are not committed yet."""
    atomic = [
        each
        for each, database in connections.settings.items()
        if each != alias and database.get("ATOMIC_REQUESTS")
    ]
    if atomic and not connections.settings[alias].get("ATOMIC_REQUESTS"):
        yield Warning(
            f"{where}: requests are transactions in {', '.join(map(quoted, atomic))} (ATOMIC_REQUESTS), but runs "
            f'are enqueued in "{alias}": a run may start before its request commits, and even if it never does.',
            hint="Enqueue in transaction.on_commit(), or keep runs in the database of the requests.",
            id="reproq_prefork.W003",
        )
