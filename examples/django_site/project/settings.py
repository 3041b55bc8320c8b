"""Settings of the example. DATABASE_URL names its database, which is also its queue."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec

from psycopg.conninfo import conninfo_to_dict

if not os.environ.get("DATABASE_URL"):
    sys.exit("Set DATABASE_URL first, for example to postgresql://app@localhost/app.")

# You try an example on your own machine. A real site has a secret key, and DEBUG off.
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

# Everything that a site needs for its tasks: the app, and the backend.
INSTALLED_APPS = [
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    *(["django_tasks"] if find_spec("django_tasks") else []),  # for Django 5.2; Django 6 has its own tasks
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
