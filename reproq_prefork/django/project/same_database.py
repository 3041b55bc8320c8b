"""Which backends in TASKS keep their runs in the database of this master: checked at the start and at a reload."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import Error, connections

from reproq_prefork.django.project.database import database_alias
from reproq_prefork.django.project.tasks_setting import own_entries
from reproq_prefork.errors import DatabaseUnavailable, SettingsError
from reproq_prefork.store.connection import CONNECTION_DEFAULTS
from reproq_prefork.store.marked_database import Where, where_they_lead
from reproq_prefork.store.sender import named_rows
from reproq_prefork.store.statements import statement

MAX_REASON_CHARS = 500

_log = logging.getLogger("reproq_prefork.django")


class NoBackendThere(SettingsError):
    """No backend in TASKS keeps its runs in the database of this master.

    If a task completed its own run or saved metadata, that would reach another run, or none.
    """

    def __init__(self, settings_module: str, found: Sequence[str]) -> None:
        super().__init__(
            [
                f"--django {settings_module}: no backend in TASKS keeps its runs in the database that this master "
                f"should use ({'; '.join(found)}), so tasks could not reach their own runs there. Start it "
                'with the database of one of them, or add a backend with that database in OPTIONS["database"].'
            ]
        )


def backends_on(database_url: str, settings_module: str) -> tuple[tuple[str, str], ...]:
    """The backends that keep their runs in this database: for each, its alias in TASKS and its alias in DATABASES.

    Raises NoBackendThere, and DatabaseUnavailable if this cannot be found out now.
    """
    aliases = {entry.alias: database_alias(entry.options) for entry in own_entries(skip_broken=True)}
    answers = where_they_lead(database_url, {alias: _Asking(alias) for alias in aliases.values()})
    own = tuple((entry, alias) for entry, alias in aliases.items() if answers[alias] is Where.SAME)
    unknown = {alias: answer for alias, answer in answers.items() if isinstance(answer, Exception)}
    if own:
        for alias, error in unknown.items():
            _log.warning('DATABASES["%s"] counts as another database: %s', alias, _reason(error))
        return own
    for alias, error in unknown.items():
        if isinstance(error, Error):
            raise DatabaseUnavailable(f'of DATABASES["{alias}"]', _reason(error))
    raise NoBackendThere(
        settings_module,
        [
            f'TASKS["{entry}"] keeps them in {_place(alias, answers[alias])}'
            for entry, alias in aliases.items()
        ],
    )


class _Asking:
    """Sends a statement as Django would, on a separate connection that leaves no pool and no thread behind."""

    def __init__(self, alias: str) -> None:
        self._alias = alias

    def __call__(self, name: str, parameters: Mapping[str, Any]) -> Sequence[Any]:
        connection = connections[self._alias].copy()
        if connection.vendor != "postgresql":
            raise ImproperlyConfigured(f"it is {connection.display_name}")
        options = connection.settings_dict.setdefault("OPTIONS", {})
        options.pop("pool", None)
        for option, value in CONNECTION_DEFAULTS.items():
            options.setdefault(option, value)
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(statement(name), parameters)
            return named_rows(cursor)


def _place(alias: str, answer: Where | Exception) -> str:
    where = f'DATABASES["{alias}"]'
    if isinstance(answer, Exception):
        return f"{where}, which cannot be used: {_reason(answer)}"
    return f"{where}, {answer.value}"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:MAX_REASON_CHARS] or type(error).__name__
