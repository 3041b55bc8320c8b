"""What applications import and name in their settings. A name that is missing here or there breaks a user's code.

Each module is imported in a new interpreter, as an application does it, with Django set up and no database.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from typing import Any

import pytest

from tests.support.checkout import CHECKOUT

TIMEOUT_S = 60
PUBLIC_NAMES = {
    "reproq_prefork": {
        "Discard",
        "FailedAttempt",
        "NewRun",
        "Retry",
        "Snooze",
        "Spec",
        "Status",
        "Task",
        "TaskCancelled",
        "TaskContext",
        "TaskInterrupted",
        "TaskRun",
        "TaskTimeout",
        "__version__",
        "acancel",
        "aenqueue",
        "aenqueue_many",
        "aget_run",
        "arequeue",
        "await_",
        "cancel",
        "enqueue",
        "enqueue_many",
        "get_run",
        "on_attempt_failed",
        "on_task_process_end",
        "on_task_process_start",
        "on_worker_start",
        "on_worker_stop",
        "requeue",
        "task",
        "wait",
    },
    "reproq_prefork.django": {
        "Discard",
        "ReproqBackend",
        "Retry",
        "Snooze",
        "TaskCancelled",
        "TaskTimeout",
        "abulk_enqueue",
        "bulk_enqueue",
        "call",
        "reproq_options",
    },
    "reproq_prefork.executor": {"Attempt", "Discard", "Retry", "Snooze", "context", "run"},
    "reproq_prefork.spec": {
        "PYTHON_TASK_VERSION",
        "Json",
        "Spec",
        "SpecError",
        "canonical_json",
        "parse_json",
        "spec_hash",
    },
    "reproq_prefork.testing": {"assert_enqueued", "assert_not_enqueued", "enqueued", "run_tasks"},
}
LOOK = """
import importlib, json, sys
import django
django.setup()
from django.apps import apps
from django.core.management import get_commands, load_command_class
found = {}
for module in map(importlib.import_module, sys.argv[1:]):
    for name in module.__all__:
        getattr(module, name)
    found[module.__name__] = module.__all__
config = apps.get_app_config("reproq_prefork")
provider = get_commands()["reproq_worker"]
load_command_class(provider, "reproq_worker")
print(json.dumps({
    "names": found,
    "application": config.name,
    "models": sorted(model.__name__ for model in config.get_models()),
    "command": provider,
    "fixture": hasattr(importlib.import_module("reproq_prefork.testing"), "_run_tasks"),
}))
"""


@pytest.fixture(scope="module")
def found() -> Any:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *PUBLIC_NAMES],
        cwd=CHECKOUT,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.django.settings"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("module", PUBLIC_NAMES)
def test_a_public_module_has_its_names_and_no_others(found: Any, module: str) -> None:
    assert len(found["names"][module]) == len(set(found["names"][module]))
    assert set(found["names"][module]) == PUBLIC_NAMES[module]


def test_django_finds_the_application_its_models_and_its_command(found: Any) -> None:
    assert found["application"] == "reproq_prefork.django"
    assert {"TaskRun", "Worker"} <= set(found["models"])
    assert found["command"] == "reproq_prefork.django"


def test_a_project_can_name_the_module_of_the_pytest_fixture(found: Any) -> None:
    """The plugin is not registered: a project writes `pytest_plugins = ["reproq_prefork.testing"]`."""
    assert found["fixture"]
    assert not [each for each in entry_points(group="pytest11") if each.value.startswith("reproq_prefork")]


def test_the_console_script_and_the_package_are_the_same_program() -> None:
    (script,) = (each for each in entry_points(group="console_scripts") if each.name == "reproq-prefork")
    assert script.value == "reproq_prefork.cli:main"
    assert callable(script.load())
    by_module = subprocess.run(
        [sys.executable, "-m", "reproq_prefork", "--version"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert by_module.returncode == 0, by_module.stderr
    assert by_module.stdout.startswith("reproq-prefork ")
