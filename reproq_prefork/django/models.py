"""The tables as models, for reading. The migrations make them; `enqueue` and the workers write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.db import models

from reproq_prefork.django.fields import (
    RealField,
    StoredDateTimeField,
    StoredJSONField,
    TextListField,
)
from reproq_prefork.django.project.database import own_alias
from reproq_prefork.model.run import Status

if TYPE_CHECKING:
    _Manager = models.Manager[Any]
else:
    _Manager = models.Manager

STATUS_CHOICES = [(status.value, status.value.capitalize()) for status in Status]


class QueueManager(_Manager):
    """Reads the database that holds the tasks, so that no router is needed if that is not the default one."""

    def get_queryset(self) -> Any:
        queryset = super().get_queryset()
        return queryset if self._db else queryset.using(own_alias())


class TaskRun(models.Model):
    """One row of `task_runs`.

    `save()` is refused: an old copy of a row would undo what a worker has written meanwhile.
    `TaskRun.objects.filter(…).update(priority=…)` works.
    """

    id = models.BigAutoField("id", primary_key=True)
    queue_name = models.TextField("queue", default="default")
    payload = StoredJSONField("payload")
    spec_hash = models.TextField("spec hash")
    task_path = models.TextField("task", null=True, editable=False)
    priority = models.SmallIntegerField("priority", default=0)
    run_after = StoredDateTimeField("not before", null=True)
    status = models.TextField("status", default=Status.PENDING.value, choices=STATUS_CHOICES)
    attempts = models.IntegerField("attempts", default=0)
    max_attempts = models.IntegerField("attempts allowed", default=3)
    timeout_seconds = RealField("timeout in seconds", null=True)
    claims = models.BigIntegerField("claims", default=0)
    leased_by = models.TextField("held by", null=True)
    lease_expires_at = StoredDateTimeField("lease ends", null=True)
    worker_ids = TextListField("attempted by", default=list)
    result = StoredJSONField("result", null=True)
    errors = StoredJSONField("errors", default=list)
    enqueued_at = StoredDateTimeField("enqueued", auto_now_add=True)
    started_at = StoredDateTimeField("first started", null=True)
    last_attempted_at = StoredDateTimeField("last started", null=True)
    finished_at = StoredDateTimeField("finished", null=True)
    replay_of = models.BigIntegerField("re-run of", null=True)
    unique_key = models.TextField("unique key", null=True)
    executor = models.TextField("executor", null=True)
    atomic = models.BooleanField("atomic", default=False)
    retry_base_seconds = RealField("first wait before a retry, in seconds", null=True)
    retry_max_seconds = RealField("longest wait before a retry, in seconds", null=True)
    cancel_requested_at = StoredDateTimeField("asked to stop", null=True)
    metadata = StoredJSONField("progress", null=True)
    last_attempt = StoredJSONField("usage of the last attempt", null=True)
    finish_due_at = StoredDateTimeField("end to be announced from", null=True)

    objects = QueueManager()

    class Meta:
        db_table = "task_runs"
        managed = False
        verbose_name = "task run"

    def save(self, *_args: Any, **_kwargs: Any) -> None:
        raise TypeError(
            "A TaskRun cannot be saved, since that would undo what a worker has written meanwhile: enqueue its "
            "task, or use TaskRun.objects.filter(…).update(…)."
        )

    def __str__(self) -> str:
        return f"Run {self.pk}"


class Worker(models.Model):
    """A registered worker fork: one row of `reproq_workers`."""

    id = models.TextField("id", primary_key=True)
    host = models.TextField("host")
    host_identity = models.TextField("boot and pid namespace of the host")
    pid = models.IntegerField("process id")
    pid_started = models.BigIntegerField("start of the process in clock ticks")
    master_pid = models.IntegerField("process id of its master")
    master_started = models.BigIntegerField("start of its master in clock ticks")
    backend_pid = models.IntegerField("process id of its server process", null=True)
    backend_started = StoredDateTimeField("start of its server process", null=True)
    version = models.TextField("version")
    queues = TextListField("queues")
    started_at = StoredDateTimeField("started", auto_now_add=True)
    renewed_at = StoredDateTimeField("lease renewed")
    lease_expires_at = StoredDateTimeField("lease ends")

    objects = QueueManager()

    class Meta:
        db_table = "reproq_workers"
        managed = False
        verbose_name = "worker"

    def __str__(self) -> str:
        return str(self.pk)
