"""Fills in from a Django project what nobody else has said: the database, and the queues.

The project is imported by a child that ends at once (`django/settings_reader.py`), never here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reproq_prefork.errors import SettingsError
from reproq_prefork.settings import Settings

READER = "reproq_prefork.django.settings_reader"


def with_django(
    settings: Settings, settings_module: str, *, url_from_flag: bool, queues_given: bool
) -> Settings:
    """`settings` with the database and the queues of the project whose settings this module has.

    `url_from_flag`: a flag names the database, which is stronger. A variable DATABASE_URL is not: most projects
    have one for Django to read, and read it their own way. `queues_given`: the queues were set anywhere.

    Raises SettingsError where the project does not load within the boot timeout, or has nothing for a worker.
    """
    if url_from_flag and queues_given:
        return settings
    read = _read(settings, settings_module, needs_database=not url_from_flag)
    if "problems" in read:
        raise SettingsError(read["problems"])
    if not url_from_flag:
        settings = replace(settings, database_url=read["database_url"])
    if not queues_given and read["queues"]:
        settings = replace(settings, queues=tuple(read["queues"]))
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
    """That of a worker, which has the same modules: the project's directory comes first."""
    environ = dict(settings.task_environ)
    paths = [str(settings.chdir), *filter(None, [environ.get("PYTHONPATH")])]
    return {**environ, "PYTHONPATH": os.pathsep.join(paths)}
