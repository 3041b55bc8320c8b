"""Which of the backends that keep their runs in one database a run counts as."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.core.exceptions import ImproperlyConfigured

from reproq_prefork.django.families.compat import Family
from reproq_prefork.django.perform.runs_database import RunsDatabase

QUEUES = {"first": {"default"}, "mails": {"mail", "news"}, "all": set[str]()}


def home_of(queue_name: str, task_backend: str, aliases: dict[str, str]) -> tuple[Any, str]:
    backends = {alias: SimpleNamespace(alias=alias, queues=queues) for alias, queues in QUEUES.items()}
    family = cast(Family, SimpleNamespace(backends=backends))
    home = RunsDatabase(aliases).home_of(queue_name, SimpleNamespace(backend=task_backend), family)
    return home.backend.alias, home.database


@pytest.mark.parametrize(
    ("queue_name", "task_backend", "expected"),
    [
        ("default", "first", "first"),
        ("default", "all", "all"),
        ("default", "mails", "first"),
        ("mail", "first", "mails"),
        ("mail", "mails", "mails"),
        ("mail", "all", "all"),
        ("other", "first", "all"),
    ],
)
def test_the_backend_of_a_run_has_its_queue_and_is_the_tasks_own_if_possible(
    queue_name: str, task_backend: str, expected: str
) -> None:
    aliases = {"first": "one", "mails": "two", "all": "three"}
    assert home_of(queue_name, task_backend, aliases) == (expected, aliases[expected])


def test_the_backend_of_a_run_never_has_another_database() -> None:
    assert home_of("mail", "mails", {"first": "one"}) == ("first", "one")
    with pytest.raises(ImproperlyConfigured):
        home_of("mail", "mails", {})
