"""The queues, for their page."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from reproq_prefork.django.admin.presentation import short_duration
from reproq_prefork.model.run import Status
from reproq_prefork.store.operator_store import Count, OperatorReads
from reproq_prefork.text.printable import printable


@dataclass(frozen=True, slots=True)
class QueueRow:
    """`parameter` names the queue in a URL. The other values are shown."""

    parameter: str
    name: str
    pending: str
    due: str
    oldest_due: str
    running: str
    failed_lately: str
    successful: str
    failed: str
    cancelled: str


def queue_rows(reads: OperatorReads) -> list[QueueRow]:
    failed_lately = reads.recent_failures()
    return [
        QueueRow(
            parameter=queue.name,
            name=printable(queue.name),
            pending=_number(queue.count(Status.PENDING)),
            due=_number(Count(queue.count(Status.PENDING).due, exact=queue.count(Status.PENDING).exact)),
            oldest_due=""
            if queue.oldest_due_s is None
            else short_duration(timedelta(seconds=queue.oldest_due_s)),
            running=_number(queue.count(Status.RUNNING)),
            failed_lately=f"{failed_lately.get(queue.name, 0):,}",
            successful=_number(queue.count(Status.SUCCESSFUL)),
            failed=_number(queue.count(Status.FAILED)),
            cancelled=_number(queue.count(Status.CANCELLED)),
        )
        for queue in reads.queues()
    ]


def _number(count: Count) -> str:
    return f"{'' if count.exact else 'about '}{count.runs:,}"
