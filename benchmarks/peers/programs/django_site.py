"""What the peers that are backends of Django's tasks have in common."""

from __future__ import annotations

import os
import sys

import django

from benchmarks.peers.programs import verbs


def main(peer, work, tables, enqueue_many=None):
    """`work`: the words of its worker's command. `tables`: what is emptied. `enqueue_many(task, count)`: its own
    way of adding many; where it has none they are added one by one, in one transaction."""
    os.environ |= {
        "BENCH_PEER": peer,
        "DJANGO_SETTINGS_MODULE": "benchmarks.peers.programs.django_site_settings",
    }
    django.setup()
    from django.core.management import call_command
    from django.db import connection, transaction

    from benchmarks.peers.programs.django_site_tasks import body, no_op, note

    def enqueue(count):
        with connection.cursor() as cursor:
            cursor.execute(f"truncate {tables} cascade")
        if enqueue_many is not None:
            enqueue_many(no_op, int(count))
            return
        with transaction.atomic():
            for number in range(int(count)):
                no_op.enqueue(number)

    verbs.main(
        prepare=lambda: call_command("migrate", verbosity=0),
        enqueue=enqueue,
        produce=lambda count, pause_s: verbs.produce(note.enqueue, int(count), float(pause_s)),
        feed=lambda count, pause_s, first: verbs.produce(
            body.enqueue, int(count), float(pause_s), int(first)
        ),
        work=lambda _option="": os.execv(sys.executable, [sys.executable, "-m", "django", *work]),
    )
