"""Tasks of the tests' site, declared as its users declare theirs: by Django's own decorator, or the backport's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django

from tests.django.app.models import Note

if TYPE_CHECKING or django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task

STEP_S = 0.05


@task
def add(a: int, b: int) -> int:
    return a + b


@task
async def add_asynchronously(a: int, b: int) -> int:
    return a + b


@task
def fail(message: str) -> None:
    raise ValueError(message)


@task
def write_note(text: str) -> int:
    return Note.objects.create(text=text).pk


@task
def write_note_and_fail(text: str) -> None:
    Note.objects.create(text=text)
    raise ValueError("after the note was written")


@task(queue_name="mail", priority=10)
def send_mail(to: str) -> str:
    return f"sent to {to}"


@task
def wait_for_file(path: str) -> str:
    """Runs until the test makes the file."""
    while not Path(path).exists():
        time.sleep(STEP_S)
    return path


@task(takes_context=True)
def tell_id_and_attempt(context: Any) -> list[Any]:
    return [context.task_result.id, context.attempt]


@task(takes_context=True)
def count_until_cancelled(context: Any) -> int:
    """Says how far it is, and stops of its own accord once it is cancelled; a returned value is its success."""
    count = 0
    while not context.cancelled:
        count += 1
        context.save_metadata({"count": count})
        time.sleep(STEP_S)
    return count
