"""The application for `INSTALLED_APPS`."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks


class ReproqConfig(AppConfig):
    name = "reproq_prefork.django"
    label = "reproq_prefork"
    verbose_name = "Background tasks"

    def ready(self) -> None:
        from reproq_prefork.django.project.schema_check import check_schema

        checks.register(check_schema, checks.Tags.database)
