"""The task: it makes the sales report of a year, month by month, and reports its progress."""

from __future__ import annotations

import os
import random
import time
from typing import Any

try:
    from django.tasks import task
    from django.tasks.exceptions import TaskResultDoesNotExist
except ImportError:  # Django 5.2
    from django_tasks import task  # type: ignore[no-redef]
    from django_tasks.exceptions import TaskResultDoesNotExist  # type: ignore[assignment]

__all__ = ["TaskResultDoesNotExist", "make_report"]

MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
# One month takes as long as a slow query.
STEP_S = float(os.environ.get("REPORT_STEP_SECONDS", "0.6"))


@task(takes_context=True)
def make_report(context: Any, year: int) -> dict[str, Any]:
    """Returns the sales of each month and their total.

    If the report is cancelled, TaskCancelled is raised here. So the task needs no code for it, except its own
    cleanup.
    """
    sales: list[dict[str, Any]] = []
    for month in MONTHS:
        context.save_metadata({"done": len(sales), "of": len(MONTHS), "step": f"Adding up {month} {year}"})
        sales.append({"month": month, "amount": sales_of(year, month)})
    return {"year": year, "months": sales, "total": sum(each["amount"] for each in sales)}


def sales_of(year: int, month: str) -> int:
    """Invented, but the same each time."""
    time.sleep(STEP_S)
    return random.Random(f"{year} {month}").randrange(20_000, 90_000)
