"""The Django application inside a worker: loaded once, then it executes one run after the other."""

from __future__ import annotations

import os
import traceback
from dataclasses import replace
from typing import Any

from reproq_prefork.django.project.settings_reader import read, why_absent
from reproq_prefork.errors import ReproqError, SettingsError
from reproq_prefork.executors.contract import SoftStop
from reproq_prefork.model.outcome import AttemptReport
from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.settings import Settings
from reproq_prefork.settings.django_project import filled
from reproq_prefork.text.outlet import write_text_at_once

SETTINGS_VARIABLE = "DJANGO_SETTINGS_MODULE"
MAX_REASON_CHARS = 4_000


class ApplicationNotLoaded(ReproqError):
    """Django, or a module of the project, could not be imported."""


class DjangoRuntime:
    """See `executors.Runtime`. `load` imports Django, in the process that runs tasks."""

    announces = True

    def __init__(self, settings: Settings) -> None:
        assert settings.django_settings is not None
        self._settings_module = settings.django_settings
        self._allowed = settings.allowed_task_modules or None
        self._policy = settings.retry_policy
        self._backends = dict(settings.django_backends)
        self._performer: Any = None

    def load(self) -> None:
        os.environ[SETTINGS_VARIABLE] = self._settings_module
        try:
            self._load()
        except (Exception, SystemExit) as error:
            absent = why_absent(self._settings_module, error)
            if absent is not None:
                raise SettingsError([f"--django {self._settings_module}: {absent}"]) from None
            write_text_at_once(2, traceback.format_exc())
            frames = traceback.extract_tb(error.__traceback__)
            where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
            raise ApplicationNotLoaded(
                f"The Django project of {self._settings_module} cannot be loaded: "
                f"{type(error).__name__}: {str(error)[:MAX_REASON_CHARS]}{where}"
            ) from error

    def _load(self) -> None:
        import django

        django.setup()
        from django.apps import apps
        from django.utils.module_loading import autodiscover_modules

        # Most tasks need these modules. So they are imported before the first fork, and a broken one is noticed
        # before the worker counts as ready.
        autodiscover_modules("tasks")
        for app in apps.get_app_configs():
            if app.name == "reproq_prefork.django":
                break
        else:
            raise ReproqError('INSTALLED_APPS lacks "reproq_prefork.django".')
        from reproq_prefork.django.families.compat import families
        from reproq_prefork.django.perform.connections import close_connections
        from reproq_prefork.django.perform.performing import Performer
        from reproq_prefork.django.perform.runs_database import RunsDatabase

        for family in families():
            for alias in self._backends:
                family.backends[alias]  # made once, here, not in each fork
        self._performer = Performer(self._policy, RunsDatabase(self._backends), allowed=self._allowed)
        close_connections()

    def complete_settings(self, settings: Settings) -> Settings:
        """Add the project's database and queues, where nothing stronger is set. Raises SettingsError."""
        found = read(self._settings_module, needs_database=not settings.database_url_is_flag)
        return filled(settings, database_url=found.database_url, queues=found.queues)

    def locate_runs(self, settings: Settings) -> Settings:
        """Add the backends whose runs are in the database of the settings.

        Raises NoBackendThere, a SettingsError, and DatabaseUnavailable.
        """
        from reproq_prefork.django.project.same_database import backends_on

        found = backends_on(settings.require_database_url(), self._settings_module)
        return replace(settings, django_backends=found)

    def perform(self, run: ClaimedRun, stop: SoftStop) -> AttemptReport:
        report: AttemptReport = self._performer.perform(run, stop)
        return report

    def announce(self, run_id: int) -> None:
        self._performer.announce(run_id)
