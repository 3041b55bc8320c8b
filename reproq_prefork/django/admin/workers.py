"""The page of the workers: the hosts, and what each worker executes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.template.response import TemplateResponse
from django.urls import path

from reproq_prefork.django.admin.pages import page_context
from reproq_prefork.django.admin.presentation import short_duration
from reproq_prefork.django.models import Worker
from reproq_prefork.django.project.database import own_alias
from reproq_prefork.django.sender import DjangoSender
from reproq_prefork.store.operator_store import OperatorReads, WorkerAtWork
from reproq_prefork.text.printable import printable

if TYPE_CHECKING:
    _ModelAdmin = admin.ModelAdmin[Worker]
else:
    _ModelAdmin = admin.ModelAdmin

CSS = "reproq_prefork/admin.css"


@dataclass(frozen=True, slots=True)
class ShownRun:
    id: int
    task: str
    queue: str
    attempt: int
    running: str


@dataclass(frozen=True, slots=True)
class WorkerRow:
    id: str
    pid: str
    version: str
    queues: str
    up: str
    lease: str
    lease_ended: bool
    runs: tuple[ShownRun, ...]


@dataclass(frozen=True, slots=True)
class Host:
    """`name` is empty for holders that are not registered any more."""

    name: str
    workers: tuple[WorkerRow, ...]


class WorkerAdmin(_ModelAdmin):
    class Media:
        css = {"all": [CSS]}

    def has_add_permission(self, request: Any) -> bool:
        return False

    def has_change_permission(self, request: Any, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        return False

    def get_urls(self) -> list[Any]:
        return [
            path(
                "",
                self.admin_site.admin_view(self.changelist_view),
                name="reproq_prefork_worker_changelist",
            )
        ]

    def changelist_view(self, request: Any, extra_context: Any = None) -> Any:
        if not self.has_view_permission(request):
            raise PermissionDenied
        context = {
            **page_context(self, request, "Workers"),
            "hosts": hosts(OperatorReads(DjangoSender(own_alias()).fetch).workers()),
            **(extra_context or {}),
        }
        return TemplateResponse(request, "admin/reproq_prefork/worker/workers.html", context)


def hosts(workers: Sequence[WorkerAtWork]) -> list[Host]:
    """By host, in the order of the workers."""
    return [
        Host(printable(name or ""), tuple(map(_row, members)))
        for name, members in groupby(workers, key=lambda worker: worker.host)
    ]


def _row(worker: WorkerAtWork) -> WorkerRow:
    return WorkerRow(
        id=printable(worker.id),
        pid="" if worker.pid is None else str(worker.pid),
        version=printable(worker.version or ""),
        queues=printable(", ".join(worker.queues or ())),
        up=_duration(worker.up_s),
        lease=_lease(worker.lease_s),
        lease_ended=worker.lease_s is not None and worker.lease_s < 0,
        runs=tuple(
            ShownRun(
                run.id,
                printable(run.task_path or ""),
                printable(run.queue_name),
                run.attempt,
                _duration(run.running_s),
            )
            for run in worker.runs
        ),
    )


def _lease(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"ended {_duration(-seconds)} ago" if seconds < 0 else f"{_duration(seconds)} left"


def _duration(seconds: float | None) -> str:
    return "" if seconds is None else short_duration(timedelta(seconds=seconds))
