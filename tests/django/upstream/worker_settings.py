"""The tests' site as workers see it that run the tasks of Django's tests: any queue, and a log that is read."""

from __future__ import annotations

import importlib.util
import os

from tests.django.settings import *  # noqa: F403
from tests.django.settings import INSTALLED_APPS
from tests.django.upstream.log_records import FILE_VARIABLE, LOGGERS

INSTALLED_APPS = [
    *INSTALLED_APPS,
    *(package for package in ("tasks", "tasks_of_backport") if importlib.util.find_spec(package)),
]
TASKS = {"default": {"BACKEND": "reproq_prefork.django.ReproqBackend", "QUEUES": []}}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "tests.django.upstream.log_records.AsJson"}},
    "handlers": {
        "file": {
            "class": "logging.FileHandler",
            "filename": os.environ.get(FILE_VARIABLE, os.devnull),
            "formatter": "json",
        }
    },
    "loggers": {name: {"handlers": ["file"], "level": "DEBUG"} for name in LOGGERS},
}
