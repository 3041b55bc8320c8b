"""For the tests of a project that enqueues: `run_tasks`, `assert_enqueued`, and the pytest fixture `run_tasks`.

pytest_plugins = ["reproq_prefork.testing"]  # in conftest.py, for the fixture

def test_an_order_is_confirmed(db, run_tasks):
    place_order()
    assert_enqueued(send_confirmation, args=[1])
    run_tasks()
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

_NAMES = ("assert_enqueued", "assert_not_enqueued", "enqueued", "run_tasks")
__all__ = ["assert_enqueued", "assert_not_enqueued", "enqueued", "run_tasks"]  # noqa: F822 (by __getattr__)


def __getattr__(name: str) -> Any:
    # Imported here: Django needs its settings first.
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from reproq_prefork.django import testing

    return getattr(testing, name)


with contextlib.suppress(ImportError):
    import pytest

    @pytest.fixture(name="run_tasks")
    def _run_tasks() -> Callable[..., list[Any]]:
        """`run_tasks()`: run all due tasks in the test's process. Returns their results."""
        from reproq_prefork.django.testing import run_tasks

        return run_tasks
