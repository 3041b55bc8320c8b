"""Settings of the example: its database, which also is its queue, is the one that DATABASE_URL names."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from psycopg.conninfo import conninfo_to_dict

if not os.environ.get("DATABASE_URL"):
    sys.exit("Set DATABASE_URL first, for example to postgresql://app@localhost/app.")

# An example is tried on one's own machine. A real site has a key that is a secret, and DEBUG off.
SECRET_KEY = "an example has no secrets"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]

_database = conninfo_to_dict(os.environ["DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _database.pop("dbname", ""),
        "USER": _database.pop("user", ""),
        "PASSWORD": _database.pop("password", ""),
        "HOST": _database.pop("host", ""),
        "PORT": _database.pop("port", ""),
        "OPTIONS": _database,
    }
}

# All that a site needs for its tasks: the app, and the backend.
INSTALLED_APPS = [
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    *(["django_tasks"] if find_spec("django_tasks") else []),  # Django 5.2; Django 6 has tasks of its own
    "reproq_prefork.django",
    "reports",
]
TASKS = {"default": {"BACKEND": "reproq_prefork.django.ReproqBackend"}}

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "reports.urls"
STATIC_URL = "static/"
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
TIME_ZONE = "UTC"
