"""The filters beside the list. Their choices are found without reading the whole table."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models.functions import Now

from reproq_prefork.django.models import STATUS_CHOICES, TaskRun, Worker
from reproq_prefork.django.project.database import own_alias
from reproq_prefork.django.project.tasks_setting import own_entries
from reproq_prefork.django.sender import DjangoSender
from reproq_prefork.store.operator_store import OperatorReads
from reproq_prefork.text.printable import printable

RUNS_LOOKED_AT = 1_000  # to find the tasks for the choices
MAX_OFFERED = 50
MAX_LABEL_CHARS = 80
MAX_NAME_CHARS = 500  # a longer name is not offered, since each adds its length to the page

AGES = {
    "hour": ("Past hour", timedelta(hours=1)),
    "day": ("Past 24 hours", timedelta(days=1)),
    "week": ("Past 7 days", timedelta(days=7)),
}


class StatusFilter(admin.SimpleListFilter):
    title = "status"
    parameter_name = "status"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return STATUS_CHOICES

    def queryset(self, request: Any, queryset: Any) -> Any:
        return _equal(queryset, "status", self.value())


class QueueFilter(admin.SimpleListFilter):
    """The queues of the settings, those of the workers, and those with due runs."""

    title = "queue"
    parameter_name = "queue"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        names = {name for entry in own_entries() for name in entry.queues}
        for queues in Worker.objects.values_list("queues", flat=True)[:RUNS_LOOKED_AT]:
            names.update(queues)
        names.update(OperatorReads(DjangoSender(own_alias()).fetch).waited_s())
        return _offered(names, self.used_parameters.get("queue"))

    def queryset(self, request: Any, queryset: Any) -> Any:
        return _equal(queryset, "queue_name", self.value())


class TaskFilter(admin.SimpleListFilter):
    """The tasks of the newest runs."""

    title = "task"
    parameter_name = "task"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        paths = TaskRun.objects.order_by("-id").values_list("task_path", flat=True)[:RUNS_LOOKED_AT]
        return _offered(filter(None, paths), self.used_parameters.get("task"))

    def queryset(self, request: Any, queryset: Any) -> Any:
        return _equal(queryset, "task_path", self.value())


class AgeFilter(admin.SimpleListFilter):
    title = "enqueued"
    parameter_name = "age"

    def lookups(self, request: Any, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, label) for name, (label, _) in AGES.items()]

    def queryset(self, request: Any, queryset: Any) -> Any:
        age = AGES.get(self.value() or "")
        return queryset if age is None else queryset.filter(enqueued_at__gte=Now() - age[1])


def _offered(values: Iterable[str], chosen: Any) -> list[tuple[str, str]]:
    offered = sorted(value for value in set(values) if len(value) <= MAX_NAME_CHARS)[:MAX_OFFERED]
    if chosen and chosen not in offered:
        offered.append(str(chosen))
    return [(value, _label(value)) for value in offered]


def _label(value: str) -> str:
    shown = printable(value)
    return shown if len(shown) <= MAX_LABEL_CHARS else f"{shown[:MAX_LABEL_CHARS]}…"


def _equal(queryset: Any, column: str, value: str | None) -> Any:
    if value is None:
        return queryset
    # A URL may hold a NUL, a column cannot.
    return queryset.none() if "\0" in value else queryset.filter(**{column: value})
