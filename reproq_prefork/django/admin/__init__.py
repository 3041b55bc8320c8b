"""Task runs and workers in Django's admin: look at them, re-run them, cancel them, change their priority.

May import every other folder of the Django wing but `management`.
"""

from __future__ import annotations

from django.contrib import admin

from reproq_prefork.django.admin.runs import TaskRunAdmin
from reproq_prefork.django.admin.workers import WorkerAdmin
from reproq_prefork.django.models import TaskRun, Worker

admin.site.register(TaskRun, TaskRunAdmin)
admin.site.register(Worker, WorkerAdmin)

__all__ = ["TaskRunAdmin", "WorkerAdmin"]
