"""Reads what a worker must know about a Django project, in a separate process.

`python -m reproq_prefork.django.project.settings_reader MODULE`: the master runs this as a child, since the master
must not import the project. One JSON object goes to standard output. Output of the project goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reproq_prefork.errors import SettingsError
from reproq_prefork.text.outlet import write_text_at_once

if TYPE_CHECKING:
    from reproq_prefork.django.project.tasks_setting import Entry


@dataclass(frozen=True, slots=True)
class DjangoSettings:
    """`database_url` is for libpq, as key=value pairs; `aliases` are those of our backends in TASKS."""

    database_url: str
    queues: tuple[str, ...]
    aliases: tuple[str, ...]


def read(settings_module: str, *, needs_database: bool = True) -> DjangoSettings:
    """Set Django up with this module, and read TASKS and DATABASES.

    `needs_database` False: the backends may have different databases, and `database_url` is empty. Raises
    SettingsError if the project does not load, has no backend of ours, or needs more than one master.
    """
    os.environ["DJANGO_SETTINGS_MODULE"] = settings_module
    try:
        import django

        django.setup()
        from reproq_prefork.django.project.tasks_setting import own_entries

        entries = own_entries()
    except Exception as error:
        absent = why_absent(settings_module, error)
        if absent is not None:
            raise _problem(settings_module, absent) from None
        write_text_at_once(2, traceback.format_exc())
        raise _problem(
            settings_module, f"the project does not load: {type(error).__name__}: {error}"
        ) from None
    if not entries:
        raise _problem(
            settings_module,
            "no backend in TASKS is reproq_prefork.django.ReproqBackend, so a worker has nothing to do there.",
        )
    queues = tuple(dict.fromkeys(queue for entry in entries for queue in entry.queues))
    users = _users_of_databases(settings_module, entries) if needs_database else {"": []}
    if len(users) > 1:
        raise _problem(
            settings_module,
            f"the backends in TASKS keep their runs in {len(users)} databases "
            f"({'; '.join(' and '.join(aliases) for aliases in users.values())}), but a master works on one: "
            "start one master for each, with --database-url and --queue.",
        )
    return DjangoSettings(next(iter(users)), queues, tuple(entry.alias for entry in entries))


def why_absent(settings_module: str, error: BaseException) -> str | None:
    """If the settings module itself does not exist: a sentence. None: it exists, and something else is wrong."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return None
    if error.name != settings_module and not settings_module.startswith(f"{error.name}."):
        return None
    return (
        f"there is no module {error.name} in {Path.cwd()} or on PYTHONPATH; give the name that "
        "DJANGO_SETTINGS_MODULE has in manage.py, and --chdir if the project is in another directory."
    )


def _users_of_databases(settings_module: str, entries: Sequence[Entry]) -> dict[str, list[str]]:
    """The backends of each database, by its address."""
    from reproq_prefork.django.project.database import database_alias

    found: dict[str, list[str]] = {}
    for entry in entries:
        alias = database_alias(entry.options)
        try:
            found.setdefault(conninfo(alias), []).append(entry.alias)
        except Exception as error:
            raise _problem(
                settings_module, f'the database "{alias}" of TASKS["{entry.alias}"] cannot be used: {error}'
            ) from None
    return found


def _problem(settings_module: str, why: str) -> SettingsError:
    return SettingsError([f"--django {settings_module}: {why}"])


def conninfo(alias: str) -> str:
    """How Django connects to this database, for libpq. Parameters that only Django understands are left out.

    `assume_role` becomes a parameter of the session. Raises LookupError, ValueError or ImproperlyConfigured.
    """
    from django.db import connections
    from psycopg.conninfo import make_conninfo
    from psycopg.pq import Conninfo

    if alias not in connections.settings:
        raise LookupError("DATABASES has no such name")
    connection = connections[alias]
    if connection.vendor != "postgresql":
        raise ValueError(f"it is {connection.vendor}, and task runs need PostgreSQL")
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    parameters = {
        name: value
        for name, value in connection.get_connection_params().items()
        if name in known and value is not None
    }
    role = connection.settings_dict["OPTIONS"].get("assume_role")
    if role:
        parameters["options"] = f"{parameters.get('options', '')} -c role={_escaped(role)}".strip()
    return make_conninfo("", **parameters)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def main(arguments: Sequence[str]) -> int:
    """Write the settings that were read, or the problems, as one JSON object."""
    settings_module, *rest = arguments
    # The project's output must not get into the answer for the master.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        answer.write(json.dumps(_answer(settings_module, needs_database="--no-database" not in rest)))
    return 0


def _answer(settings_module: str, *, needs_database: bool) -> Mapping[str, Any]:
    try:
        return asdict(read(settings_module, needs_database=needs_database))
    except SettingsError as error:
        return {"problems": error.problems}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
