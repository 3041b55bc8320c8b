"""Which of Django's databases holds the tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, router

from reproq_prefork.django.project.tasks_setting import own_entries


def database_alias(options: Mapping[str, Any]) -> str:
    """The alias for a backend with these `OPTIONS`: their `database`, else what the routers say, else the default.

    The models must be loaded. It does not check that there is such a database.
    """
    named = options.get("database")
    if named:
        return str(named)
    if not router.routers:
        return DEFAULT_DB_ALIAS
    return str(router.db_for_write(apps.get_model("reproq_prefork", "TaskRun")))


def own_aliases() -> tuple[str, ...]:
    """The aliases of all our backends in `TASKS`, in that order; without any, the alias of one without options."""
    found = [database_alias(entry.options) for entry in own_entries(skip_broken=True)] or [database_alias({})]
    return tuple(dict.fromkeys(found))


def own_alias() -> str:
    """The first of them. The models and the admin read it."""
    return own_aliases()[0]
