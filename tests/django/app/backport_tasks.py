"""Tasks of the backport's family, which beside Django 6 is the other one; imported only where it is installed."""

from __future__ import annotations

from django_tasks import task


@task
def multiply(a: int, b: int) -> int:
    return a * b
