"""The tasks of the peers that are backends of Django's tasks."""

from __future__ import annotations

from django.tasks import task

from benchmarks.peers.programs import verbs


@task
def no_op(number):
    return None


@task
def body(number):
    verbs.body(number)


@task
def note(number):
    verbs.note_start(number)
