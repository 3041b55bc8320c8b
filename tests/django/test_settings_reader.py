"""A worker finds its database and its queues where the project has them, and imports the project in a child."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from reproq_prefork.errors import SettingsError
from reproq_prefork.settings import Settings
from reproq_prefork.settings.django_project import with_django
from reproq_prefork.settings.resolve import resolve
from reproq_prefork.settings.sources import Sources

OURS = "reproq_prefork.django.ReproqBackend"
PROJECT = """
SECRET_KEY = "of the tests"
INSTALLED_APPS = ["django.contrib.contenttypes", "reproq_prefork.django"]
DATABASES = {databases!r}
TASKS = {tasks!r}
"""
POSTGRESQL = {"ENGINE": "django.db.backends.postgresql"}
DEFAULT = {
    **POSTGRESQL,
    "NAME": "app",
    "USER": "me",
    "PASSWORD": "it's a\\ secret",
    "HOST": "db",
    "PORT": 5433,
}

Read = Callable[..., Settings]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Writes a project with these settings, and gives what a worker in its directory would have."""

    def read(
        tasks: dict[str, Any],
        databases: dict[str, Any] | None = None,
        more: str = "",
        *,
        url_from_flag: bool = False,
        queues_given: bool = False,
    ) -> Settings:
        (tmp_path / "mysite.py").write_text(
            PROJECT.format(databases=databases or {"default": DEFAULT}, tasks=tasks) + more
        )
        flags = {"django": "mysite"}
        if url_from_flag:
            flags["database_url"] = "postgresql:///of_the_flag"
        if queues_given:
            flags["queues"] = "default"
        sources = Sources(flags, {"DATABASE_URL": "postgresql:///of_the_environment"}, tmp_path)
        return with_django(resolve(sources, hostname="host", now=datetime.now(UTC), cpu_count=1).settings)

    return read


def address(settings: Settings) -> dict[str, Any]:
    return conninfo_to_dict(settings.require_database_url())


def test_database_and_queues_come_from_the_backend(read: Read) -> None:
    settings = read({"default": {"BACKEND": OURS, "QUEUES": ["mail", "reports"]}})
    assert address(settings) == {
        "dbname": "app",
        "user": "me",
        "password": "it's a\\ secret",
        "host": "db",
        "port": "5433",
        "client_encoding": "UTF8",
    }
    assert settings.queues == ("mail", "reports")


def test_the_queues_of_all_reproq_backends_are_served_and_no_others(read: Read) -> None:
    settings = read(
        {
            "default": {"BACKEND": OURS},
            "theirs": {"BACKEND": "mysite.Theirs", "QUEUES": ["theirs"]},
            "more": {"BACKEND": "mysite.Mine", "QUEUES": ["more", "default"]},
        },
        more="import functools\n"
        "class Theirs: pass\n"
        "def __getattr__(name):\n"
        "    if name != 'Mine': raise AttributeError(name)\n"
        "    from reproq_prefork.django import ReproqBackend\n"
        "    return type('Mine', (ReproqBackend,), {})\n",
    )
    assert settings.queues == ("default", "more")


def test_options_that_only_django_understands_are_left_out(read: Read) -> None:
    options = {
        "service": "app",
        "sslmode": "require",
        "passfile": "/run/pass",
        "options": "-c search_path=tasks",
        "assume_role": "the role",
        "pool": True,
        "isolation_level": 3,
        "server_side_binding": True,
        "prepare_threshold": 5,
    }
    settings = read({"default": {"BACKEND": OURS}}, {"default": {**POSTGRESQL, "OPTIONS": options}})
    assert address(settings) == {
        "service": "app",
        "sslmode": "require",
        "passfile": "/run/pass",
        "options": "-c search_path=tasks -c role=the\\ role",
        "client_encoding": "UTF8",
    }


def test_the_database_in_the_options_is_used(read: Read) -> None:
    settings = read(
        {"default": {"BACKEND": OURS, "OPTIONS": {"database": "runs"}}},
        {"default": DEFAULT, "runs": {**POSTGRESQL, "NAME": "runs"}},
    )
    assert address(settings)["dbname"] == "runs"


def test_without_a_database_option_the_router_decides(read: Read) -> None:
    settings = read(
        {"default": {"BACKEND": OURS}},
        {"default": DEFAULT, "runs": {**POSTGRESQL, "NAME": "runs"}},
        more="class Router:\n    def db_for_write(self, model, **hints): return 'runs'\n"
        "DATABASE_ROUTERS = ['mysite.Router']\n",
    )
    assert address(settings)["dbname"] == "runs"


def test_flags_are_stronger_than_the_project(read: Read) -> None:
    tasks = {"default": {"BACKEND": OURS, "QUEUES": ["mail"]}}
    assert read(tasks, url_from_flag=True).database_url == "postgresql:///of_the_flag"
    assert read(tasks, url_from_flag=True).queues == ("mail",)
    assert read(tasks, queues_given=True).queues == ("default",)
    assert read(tasks, more="1 / 0", url_from_flag=True, queues_given=True).queues == ("default",)


def test_output_of_the_project_is_not_read_as_the_answer(
    read: Read, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = read({"default": {"BACKEND": OURS}}, more="import os; print('{'); os.write(1, b'}')\n")
    assert settings.queues == ("default",)
    out, err = capfd.readouterr()
    assert (out, "{" in err, "}" in err) == ("", True, True)


TWO_DATABASES = {
    "default": {"BACKEND": OURS},
    "other": {"BACKEND": OURS, "OPTIONS": {"database": "runs"}},
}


def test_two_databases_need_two_masters(read: Read) -> None:
    databases = {"default": DEFAULT, "runs": {**POSTGRESQL, "NAME": "runs"}}
    with pytest.raises(SettingsError, match=r"2 databases \(default; other\).*start one master for each"):
        read(TWO_DATABASES, databases)
    assert read(TWO_DATABASES, databases, url_from_flag=True).queues == ("default",)
    assert address(read(TWO_DATABASES, {"default": DEFAULT, "runs": DEFAULT}))["dbname"] == "app"


@pytest.mark.parametrize(
    ("tasks", "databases", "more", "sentence"),
    [
        ({}, None, "", "no backend in TASKS"),
        ({"default": {"BACKEND": "mysite.Absent"}}, None, "", "does not load: ImportError"),
        ({"default": {"BACKEND": OURS}}, None, "1 / 0", "does not load: ZeroDivisionError"),
        ({"default": {"BACKEND": OURS}}, None, "import os; os._exit(7)", "with exit status 7"),
        (
            {"default": {"BACKEND": OURS, "OPTIONS": {"database": "absent"}}},
            None,
            "",
            'database "absent".*no such name',
        ),
        (
            {"default": {"BACKEND": OURS}},
            {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "x"}},
            "",
            "it is sqlite",
        ),
        ({"default": {"BACKEND": OURS}}, {"default": POSTGRESQL}, "", "supply the NAME"),
    ],
)
def test_a_mistake_in_a_project_is_reported(
    tasks: Any, databases: Any, more: str, sentence: str, read: Read
) -> None:
    with pytest.raises(SettingsError, match=f"(?s)--django mysite: .*{sentence}"):
        read(tasks, databases, more)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("1 / 0", "cannot be loaded: ZeroDivisionError: division by zero ("),
        ("raise SystemExit(0)", "cannot be loaded: SystemExit: 0 ("),
    ],
)
def test_a_master_logs_in_one_line_why_a_project_does_not_load(
    tmp_path: Path, more: str, sentence: str
) -> None:
    (tmp_path / "mysite.py").write_text(more)
    done = subprocess.run(
        [sys.executable, "-m", "reproq_prefork", "--django", "mysite", "--drain"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    assert done.returncode != 0
    (line,) = (line for line in done.stderr.splitlines() if "ERROR master:" in line)
    assert sentence in line
    assert "mysite.py, line 1)" in line
    assert "Traceback" not in line
    assert "Traceback" in done.stderr


def test_loading_a_project_has_a_time_limit(tmp_path: Path) -> None:
    (tmp_path / "mysite.py").write_text("import time\ntime.sleep(600)\n")
    done = subprocess.run(
        [sys.executable, "-m", "reproq_prefork", "--django", "mysite", "--drain", "--boot-timeout", "1"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        stderr=subprocess.PIPE,
        encoding="utf-8",
        timeout=30,
    )
    assert done.returncode != 0
    assert "--boot-timeout" in done.stderr


def test_the_master_itself_imports_no_django(tmp_path: Path) -> None:
    probe = (
        "import json, sys, reproq_prefork.settings.django_project as _; print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=True)
    assert "django" not in json.loads(done.stdout)


def test_config_shows_which_values_come_from_the_project(tmp_path: Path) -> None:
    (tmp_path / "mysite.py").write_text(
        PROJECT.format(
            databases={"default": DEFAULT}, tasks={"default": {"BACKEND": OURS, "QUEUES": ["mail"]}}
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "reproq_prefork", "config", "--json", "--django", "mysite"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "DATABASE_URL": "postgresql:///of_the_environment"},
        capture_output=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["queue"] == {"value": "mail", "source": "Django mysite"}
    assert told["database-url"]["source"] == "Django mysite"
    assert "secret" not in done.stdout.decode()
