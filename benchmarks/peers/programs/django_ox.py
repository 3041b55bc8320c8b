"""django-ox, on psycopg's pool, as its own benchmarks have it."""

from __future__ import annotations

from benchmarks.peers.programs import django_site


def enqueue_many(task, count):
    from django_ox.bulk import enqueue_many

    enqueue_many(task, [((number,), {}) for number in range(count)])


if __name__ == "__main__":
    django_site.main(
        "django_ox",
        ["ox_worker", "--processes", "2", "--concurrency", "2", "--verbosity", "0"],
        "django_ox_oxtask",
        enqueue_many,
    )
