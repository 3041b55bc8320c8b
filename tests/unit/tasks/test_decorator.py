"""The decorator: what a task is, without a database."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from reproq_prefork import Task, TaskContext, task
from reproq_prefork.model.new_run import InvalidRun, NewRun
from reproq_prefork.spec.rules import SpecError

ENQUEUED: list[tuple[object, NewRun]] = []


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task(queue_name="mail", timeout=timedelta(minutes=2), unique=True, takes_context=True)
def greet(context: TaskContext, name: str) -> str:
    return f"{context.attempt} {name}"


@task(unique=lambda priority, **_rest: None if priority == 0 else f"p{priority}")
def ranked(priority: int, queue_name: str = "") -> int:
    return priority


@pytest.fixture(autouse=True)
def _no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    ENQUEUED.clear()

    def enqueue(connection: object, new: NewRun) -> None:
        ENQUEUED.append((connection, new))

    monkeypatch.setattr("reproq_prefork.store.runs.enqueue_new", enqueue)


def test_a_task_is_called_like_its_function() -> None:
    assert add(1, b=2) == 3
    assert add.call(1) == 1
    assert greet(TaskContext(1, "", 2, 3, 4, lambda: False), "Ada") == "2 Ada"


def test_a_task_is_named_by_where_it_is() -> None:
    assert add.path == f"{__name__}.add"
    assert add.spec(1, b=2).payload == {"v": 1, "task": add.path, "args": [1], "kwargs": {"b": 2}}


def test_options_go_to_the_run_and_arguments_to_its_payload() -> None:
    connection = object()
    greet.using(priority=7, retry_base=1).enqueue(connection, "Ada")
    ranked.enqueue(connection, priority=3, queue_name="an argument, too")
    (used, first), (_, second) = ENQUEUED
    assert used is connection
    assert (first.queue_name, first.priority, first.timeout_s) == ("mail", 7, 120.0)
    assert (first.retry_base_s, first.retry_max_s, first.executor) == (1, None, None)
    assert (second.queue_name, second.priority) == ("default", 0)
    assert '"kwargs":{"priority":3,"queue_name":"an argument, too"}' in second.spec.canonical


def test_the_key_of_a_unique_task_is_its_call_or_comes_from_a_function() -> None:
    for name in ("Ada", "Ada", "Bob"):
        greet.enqueue(None, name)
    first, same, other = (new.unique_key for _, new in ENQUEUED)
    assert first == same == f"{greet.path}:{greet.spec('Ada').hash}"
    assert other != first
    ENQUEUED.clear()
    ranked.enqueue(None, 3)
    ranked.enqueue(None, 0)
    add.enqueue(None, 1)
    assert [new.unique_key for _, new in ENQUEUED] == ["p3", None, None]


def test_using_leaves_the_task_as_it_is() -> None:
    other = add.using(queue_name="slow", max_attempts=1)
    assert (other.queue_name, other.max_attempts, other.func) == ("slow", 1, add.func)
    assert (add.queue_name, add.max_attempts) == ("default", 3)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"queue_name": "a,b"}, "holds a comma"),
        ({"priority": 101}, "priority must be"),
        ({"max_attempts": 0}, "max_attempts must be"),
        ({"timeout": -1}, "timeout_seconds must be"),
        ({"executor": "thread"}, "executor must be one of fork, inline"),
    ],
)
def test_a_wrong_option_is_refused_at_the_decorator(options: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRun, match=why):
        task(**options)(ranked.func)  # type: ignore[no-untyped-call]
    with pytest.raises(InvalidRun, match=why):
        add.using(**options)


@pytest.mark.parametrize("name", ["colour", "func"])
def test_an_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(InvalidRun, match=f"A task has no option {name}"):
        add.using(**{name: 1})


def test_a_function_that_no_worker_could_import_is_refused() -> None:
    with pytest.raises(InvalidRun, match="is not a function of a module"):
        task(lambda: None)
    with pytest.raises(InvalidRun, match='A task is made of a function, not of "3"'):
        Task(3)  # type: ignore[arg-type]

    def of_the_program() -> None: ...

    of_the_program.__module__, of_the_program.__qualname__ = "__main__", "of_the_program"
    with pytest.raises(InvalidRun, match="is defined in the program itself"):
        task(of_the_program).enqueue(None)


def test_arguments_that_are_not_json_are_refused_with_their_path() -> None:
    with pytest.raises(SpecError, match=r"args\[0\]"):
        add.enqueue(None, object())  # type: ignore[arg-type]
    assert ENQUEUED == []


def test_a_context_says_whether_the_task_is_cancelled() -> None:
    assert TaskContext(1, "", 1, 3, 1, lambda: True).cancelled
