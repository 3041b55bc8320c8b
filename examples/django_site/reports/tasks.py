"""The task: it makes the sales report of a year, month by month, and says how far it is."""

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
# A month takes as long as a slow query would.
STEP_S = float(os.environ.get("REPORT_STEP_SECONDS", "0.6"))


@task(takes_context=True)
def make_report(context: Any, year: int) -> dict[str, Any]:
    """Gives the sales of each month and their total.

    When it is cancelled TaskCancelled is raised in it, so it only has to clean up what it would clean up anyway.
    """
    sales: list[dict[str, Any]] = []
    for month in MONTHS:
        context.save_metadata({"done": len(sales), "of": len(MONTHS), "step": f"Adding up {month} {year}"})
        sales.append({"month": month, "amount": sales_of(year, month)})
    return {"year": year, "months": sales, "total": sum(each["amount"] for each in sales)}


def sales_of(year: int, month: str) -> int:
    """Made up, but the same each time."""
    time.sleep(STEP_S)
    return random.Random(f"{year} {month}").randrange(20_000, 90_000)
