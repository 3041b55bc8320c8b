"""django-tasks-db: one process a worker."""

from __future__ import annotations

from benchmarks.peers.programs import django_site

if __name__ == "__main__":
    django_site.main(
        "django_tasks_db",
        ["db_worker", "--no-startup-delay", "--no-reload", "--verbosity", "0"],
        "django_tasks_database_dbtaskresult",
    )
