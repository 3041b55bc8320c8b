"""A Django site as its users write one. Its database is the one that DATABASE_URL names.

Two parts read this: workers, in processes of their own, and the tests themselves, which are pointed at one
database after the other (`tests/support/django/databases.py`) and start without any.
"""

from __future__ import annotations

import importlib.util
import json
import os

import django

from tests.support.django.databases import connection_settings

SECRET_KEY = "of the tests"
DEBUG = False
USE_TZ = "REPROQ_TEST_NO_TIME_ZONES" not in os.environ
ALLOWED_HOSTS = ["*"]

DATABASES = {"default": connection_settings(os.environ.get("DATABASE_URL", "postgresql:///none"))}
# What tests of real workers vary, as JSON: settings of the connection, and OPTIONS of it and of the backend.
DATABASES["default"].update(json.loads(os.environ.get("REPROQ_TEST_CONNECTION", "{}")))
DATABASES["default"]["OPTIONS"].update(json.loads(os.environ.get("REPROQ_TEST_CONNECTION_OPTIONS", "{}")))
if "REPROQ_TEST_OTHER_DATABASE_URL" in os.environ:
    DATABASES["other"] = connection_settings(os.environ["REPROQ_TEST_OTHER_DATABASE_URL"])
DATABASE_ROUTERS = json.loads(os.environ.get("REPROQ_TEST_ROUTERS", "[]"))
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    *(["django_tasks"] if importlib.util.find_spec("django_tasks") else []),
    "reproq_prefork.django",
    "tests.django.app",
]

TASKS = {
    "default": {
        "BACKEND": "reproq_prefork.django.ReproqBackend",
        "QUEUES": ["default", "mail"],
        "OPTIONS": json.loads(os.environ.get("REPROQ_TEST_BACKEND_OPTIONS", "{}")),
    },
    "immediate": {
        "BACKEND": (
            "django.tasks.backends.immediate.ImmediateBackend"
            if django.VERSION >= (6, 0)
            else "django_tasks.backends.immediate.ImmediateBackend"
        )
    },
}

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "tests.django.urls"
STATIC_URL = "static/"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # a login costs a test nothing
