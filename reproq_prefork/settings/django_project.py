"""Takes the database and the queues from a Django project, if nobody else has set them.

A child process imports the project and then exits (`django/project/settings_reader.py`). It is never imported
here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from reproq_prefork.errors import SettingsError
from reproq_prefork.settings import Settings
from reproq_prefork.settings.resolve import Resolved, queues_left

READER = "reproq_prefork.django.project.settings_reader"


def with_django(settings: Settings) -> Settings:
    """`settings` with the database and the queues of the project that `django_settings` names, if it names one.

    A flag that names the database is stronger. A variable DATABASE_URL is not: in most projects, Django reads it,
    in the project's own way. Queues that were set anywhere are stronger.

    Raises SettingsError if the project does not load within the boot timeout, or has nothing for a worker.
    """
    if settings.django_settings is None or (settings.database_url_is_flag and settings.queues_are_given):
        return settings
    read = _read(settings, settings.django_settings, needs_database=not settings.database_url_is_flag)
    if "problems" in read:
        raise SettingsError(read["problems"])
    return filled(settings, database_url=read["database_url"], queues=read["queues"])


def with_project(resolved: Resolved) -> Resolved:
    """The same for settings with the origin of each value. Raises as `with_django` does."""
    settings = with_django(resolved.settings)
    if settings is resolved.settings:
        return resolved
    source = f"Django {settings.django_settings}"
    changed = {
        name: replace(resolved.values[name], value=value, source=source)
        for name, value, before in (
            ("database_url", settings.database_url, resolved.settings.database_url),
            ("queues", settings.queues, resolved.settings.queues),
        )
        if value != before
    }
    return replace(resolved, values={**resolved.values, **changed}, settings=settings)


def filled(settings: Settings, *, database_url: str, queues: Sequence[str]) -> Settings:
    """`settings` with the project's values, where nothing stronger was set."""
    if not settings.database_url_is_flag:
        settings = replace(settings, database_url=database_url)
    if not settings.queues_are_given and queues:
        left = queues_left(queues, settings.excluded_queues)
        if not left:
            raise SettingsError(
                ["--exclude-queue: no queue of the Django project is left to take tasks from"]
            )
        settings = replace(settings, queues=left)
    return settings


def _read(settings: Settings, settings_module: str, *, needs_database: bool) -> Mapping[str, Any]:
    command = [sys.executable, "-m", READER, settings_module, *([] if needs_database else ["--no-database"])]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            cwd=settings.chdir,
            env=_environ(settings),
            timeout=settings.boot_timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise SettingsError(
            [
                f"--django {settings_module}: the project did not load within {settings.boot_timeout_s:g} s "
                "(--boot-timeout)."
            ]
        ) from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise SettingsError(
            [
                f"--django {settings_module}: the project ended the process that read its settings, with exit "
                f"status {done.returncode}."
            ]
        )
    return answer


def _environ(settings: Settings) -> dict[str, str]:
    """The environment of a worker, so that the same modules are found: the project's directory comes first."""
    environ = dict(settings.task_environ)
    paths = [str(settings.chdir), *filter(None, [environ.get("PYTHONPATH")])]
    return {**environ, "PYTHONPATH": os.pathsep.join(paths)}
