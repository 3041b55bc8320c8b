"""The same no-op as a Django task."""

from __future__ import annotations

from typing import TYPE_CHECKING

import django

if TYPE_CHECKING or django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task


@task
def no_op(number: int) -> None:
    """The cheapest task there is: what remains is the engine, and Django."""
