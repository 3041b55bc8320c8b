"""The class that TASKS names: a queue backend with its checks, and with a mode for tests that need no worker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.checks import CheckMessage

from reproq_prefork.django.perform.in_process import perform_now
from reproq_prefork.django.project.checks import check_backend
from reproq_prefork.django.queue_backend import QueueBackend
from reproq_prefork.model.run import TaskRun


class ReproqBackend(QueueBackend):
    @property
    def is_immediate(self) -> bool:
        """Whether a task runs inside `enqueue`, which some tests want."""
        return bool(self.options.get("mode") == "immediate")

    def enqueued(self, task: Any, run: TaskRun, database: str) -> Any:
        result = super().enqueued(task, run, database)
        if run.created and self.is_immediate:
            perform_now(self, database, run)
            result.refresh()
        return result

    def check(self, **kwargs: Any) -> Iterable[CheckMessage]:
        return check_backend(self)
