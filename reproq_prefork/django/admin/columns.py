"""The columns of the list of runs."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.utils.formats import localize
from django.utils.html import format_html

from reproq_prefork.django.admin.listing import PAYLOAD_HEAD_CHARS
from reproq_prefork.django.admin.presentation import since
from reproq_prefork.model.run import Status
from reproq_prefork.model.stored_values import OutOfRange
from reproq_prefork.text.printable import printable

MAX_NAME_CHARS = 200  # the page has fifty names, and everybody who inserts a run may choose one


class RunColumns:
    """Each column gets a run from `RunList`: with the beginning of its payload, and the server's time."""

    list_display: Any = ("run_id", "what", "queue", "state", "priority", "tries", "enqueued", "took")

    @admin.display(description="id")
    def run_id(self, run: Any) -> str:
        return str(run.pk)  # as text, so that it gets no digit separators

    @admin.display(description="task")
    def what(self, run: Any) -> str:
        if run.task_path is not None:
            return _shortened(run.task_path)
        head = run.payload_head or ""
        more = "…" if len(head) > PAYLOAD_HEAD_CHARS else ""
        return format_html(
            '<code class="reproq-payload">{}{}</code>', printable(head[:PAYLOAD_HEAD_CHARS]), more
        )

    @admin.display(description="queue")
    def queue(self, run: Any) -> str:
        return _shortened(run.queue_name)

    @admin.display(description="status")
    def state(self, run: Any) -> str:
        return format_html(
            '<span class="reproq-badge reproq-{}">{}</span>', run.status.lower(), run.status.capitalize()
        )

    @admin.display(description="attempts")
    def tries(self, run: Any) -> str:
        return f"{run.attempts} of {run.max_attempts}"

    @admin.display(description="enqueued")
    def enqueued(self, run: Any) -> str:
        ago = since(run.enqueued_at, run.server_now)
        at = run.enqueued_at
        exactly = at.text if isinstance(at, OutOfRange) else localize(at)
        return format_html('<time title="{}">{} ago</time>', exactly, ago)

    @admin.display(description="took", empty_value="–")
    def took(self, run: Any) -> str | None:
        if run.last_attempted_at is None:
            return None
        if run.status == Status.RUNNING:
            return f"{since(run.last_attempted_at, run.server_now)} so far"
        return since(run.last_attempted_at, run.finished_at) if run.finished_at else None


def _shortened(name: str) -> str:
    return printable(name if len(name) <= MAX_NAME_CHARS else f"{name[:MAX_NAME_CHARS]}…")
