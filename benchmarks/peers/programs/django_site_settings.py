"""A Django site for one of the task backends: production settings, and connections that stay open."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

SECRET_KEY = "measured, not served"
DEBUG = False
USE_TZ = True
LOGGING = {"version": 1, "disable_existing_loggers": True}

_peer = os.environ["BENCH_PEER"]
_app, _backend, _pool = {
    "django_ox": ("django_ox", "django_ox.backend.OxBackend", True),
    "django_tasks_db": ("django_tasks_db", "django_tasks_db.DatabaseBackend", False),
    "steady_queue": ("steady_queue", "steady_queue.backend.SteadyQueueBackend", False),
}[_peer]
_address = urlsplit(os.environ["BENCH_URL"])

INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", _app]
TASKS = {"default": {"BACKEND": _backend}}
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _address.path.lstrip("/"),
        "USER": _address.username,
        "PASSWORD": _address.password,
        "HOST": _address.hostname,
        "PORT": _address.port,
        # A pool and persistent connections exclude each other.
        "CONN_MAX_AGE": 0 if _pool else None,
        "OPTIONS": {"pool": True} if _pool else {},
    }
}
if _peer == "steady_queue":
    from steady_queue.configuration import Configuration

    STEADY_QUEUE = Configuration.Options(
        workers=[Configuration.Worker(threads=10, processes=2)], recurring_tasks=[]
    )
