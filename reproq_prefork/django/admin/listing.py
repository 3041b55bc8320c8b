"""The runs that a page of the list reads: never more than a bounded part of the table.

There are indexes only for ids, spec hashes and unfinished runs. Everything else is searched among the newest runs,
and the page says so.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db import models
from django.db.models import Case, Q, Subquery, Value, When
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast, Coalesce, Left, Now

from reproq_prefork.model.run import Status

if TYPE_CHECKING:
    _Paginator = Paginator[Any]
else:
    _Paginator = Paginator

NEWEST_RUNS = 100_000
MAX_LISTED = 10_000
PAYLOAD_HEAD_CHARS = 60

LIVE = (Status.PENDING.value, Status.RUNNING.value)
COLUMNS = (
    "id",
    "task_path",
    "queue_name",
    "status",
    "priority",
    "attempts",
    "max_attempts",
    "enqueued_at",
    "run_after",
    "last_attempted_at",
    "finished_at",
)

_SPEC_HASH = re.compile("[0-9a-fA-F]{64}")
_RUN_ID = re.compile("[0-9]{1,19}")
_MIN_ID, _MAX_ID = -(2**63), 2**63 - 1


class RunPaginator(_Paginator):
    """Pages through the first 10,000. It counts no further, and an OFFSET reads all rows that it skips."""

    @cached_property
    def count(self) -> int:
        return min(self.counted, MAX_LISTED)

    @cached_property
    def counted(self) -> int:
        """How many there are, up to one more than are listed."""
        runs: Any = self.object_list
        return int(runs.order_by()[: MAX_LISTED + 1].count())


class RunList(ChangeList):
    """The newest first, whatever the URL says: no other order has an index over all runs."""

    def get_ordering(self, request: Any, queryset: Any) -> list[Any]:
        return ["-id"]

    def get_queryset(self, request: Any, exclude_parameters: Any = None) -> Any:
        queryset = super().get_queryset(request, exclude_parameters)
        if self.is_bounded:
            queryset = newest(queryset)
        return queryset.only(*COLUMNS).annotate(payload_head=_payload_head(), server_now=Now())

    @property
    def is_bounded(self) -> bool:
        """Whether only the newest runs are read."""
        asked = {name for name, value in self.params.items() if value}
        if asked & {"task", "age"} or is_path(self.query):
            return True
        return bool(asked & {"queue", "status"}) and self.params.get("status") not in LIVE


def newest(queryset: Any) -> Any:
    """The runs of `queryset` that are among the newest 100,000."""
    every = queryset.model._default_manager.using(queryset.db)
    edge = every.order_by("-id").values("id")[NEWEST_RUNS - 1 : NEWEST_RUNS]
    return queryset.filter(id__gte=Coalesce(Subquery(edge), Value(_MIN_ID)))


def search(queryset: Any, text: str) -> Any:
    """By id, by the whole spec hash, or by the beginning of the task's path."""
    text = text.strip()
    if not text:
        return queryset
    if _RUN_ID.fullmatch(text):
        number = int(text)
        return queryset.filter(id=number) if number <= _MAX_ID else queryset.none()
    if _SPEC_HASH.fullmatch(text):
        return _of_spec(queryset, text.lower())
    return queryset.filter(task_path__startswith=text)


def is_path(text: str) -> bool:
    """Whether `search` reads it as the beginning of a path."""
    text = text.strip()
    return bool(text) and not _RUN_ID.fullmatch(text) and not _SPEC_HASH.fullmatch(text)


# An array, so that only these rows are read. For a join, the planner may assume that a walk through the newest
# runs meets enough of them.
_AMONG_THE_NEWEST_OF_SPEC = """
    task_runs.id = any (array(
        select run_id
        from reproq_specs
        where spec_key = reproq_spec_key(%s)
        order by run_id desc
        limit %s
    ))
"""


def _of_spec(queryset: Any, spec_hash: str) -> Any:
    parameters = (spec_hash, MAX_LISTED + 1)
    among_its_newest = RawSQL(_AMONG_THE_NEWEST_OF_SPEC, parameters, models.BooleanField())  # noqa: S611  # a constant
    return queryset.filter(among_its_newest, spec_hash=spec_hash)


def _payload_head() -> Any:
    """What to show for a run that names no task. The payload itself, up to 1 MiB, stays in the server."""
    head = Left(Cast("payload", models.TextField()), PAYLOAD_HEAD_CHARS + 1)
    return Case(When(Q(task_path__isnull=True), then=head), output_field=models.TextField())
