"""As a site has them. DATABASE_URL names the database, as for the workers."""

from __future__ import annotations

import importlib.util
import os

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
TASKS = {"default": {"BACKEND": "reproq_prefork.django.ReproqBackend", "QUEUES": ["site"]}}
