"""As a site has them. DATABASE_URL names the database, as for the workers."""

from __future__ import annotations

import importlib.util
import os

from tests.chaos.pages import SITE_LOG
from tests.support.django.databases import connection_settings

SECRET_KEY = "of a storm"
USE_TZ = True
DATABASES = {
    "default": {
        **connection_settings(os.environ.get("DATABASE_URL", "postgresql:///none")),
        # The connections of inline tasks are kept, so that faults find some that are open.
        "CONN_MAX_AGE": 60,
    }
}
INSTALLED_APPS = [
    *(["django_tasks"] if importlib.util.find_spec("django_tasks") else []),
    "reproq_prefork.django",
    "tests.chaos.django_site",
]
# What the site logs itself would wait for a reader, as the output of any task: here only our own lines are tried.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"file": {"class": "logging.FileHandler", "filename": os.environ.get(SITE_LOG, os.devnull)}},
    "root": {"handlers": ["file"]},
}
TASKS = {"default": {"BACKEND": "reproq_prefork.django.ReproqBackend", "QUEUES": ["site"]}}
