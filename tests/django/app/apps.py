from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from django.apps import AppConfig

from reproq_prefork.django.families.compat import families


class TestAppConfig(AppConfig):
    name = "tests.django.app"
    label = "app"

    def ready(self) -> None:
        path = os.environ.get("REPROQ_TEST_HEARD")
        if path is not None:
            for family in families():
                family.signals.task_finished.connect(partial(_note, path), weak=False)


def _note(path: str, task_result: Any, **kwargs: Any) -> None:
    with Path(path).open("a") as file:
        file.write(f"{task_result.id} {task_result.status.value}\n")
