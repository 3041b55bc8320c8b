"""Django's own test classes, subclassed so that our backend stands where theirs stood."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

from django.db import connections
from django.test import SimpleTestCase, TransactionTestCase, modify_settings

from tests.django.upstream.backends import LikeTheDummy, LikeTheImmediate
from tests.django.upstream.skips import SKIPS

OUR_APP = "reproq_prefork.django"
STANDS_FOR = {
    "test_tasks": ("backends.dummy.DummyBackend", LikeTheDummy),
    "test_dummy_backend": ("backends.dummy.DummyBackend", LikeTheDummy),
    "test_immediate_backend": ("backends.immediate.ImmediateBackend", LikeTheImmediate),
}


@dataclass(frozen=True)
class Family:
    """One of the two implementations of tasks, and Django's tests in its words."""

    module: str  # django.tasks, django_tasks
    directory: Path
    package: str

    def classes(self) -> Iterator[type[TransactionTestCase]]:
        """Whatever names a backend of theirs, to import it or in settings, gets ours meanwhile."""
        if str(self.directory) not in sys.path:
            sys.path.append(str(self.directory))
        for name, (replaced, ours) in STANDS_FOR.items():
            target = f"{self.module}.{replaced}"
            with mock.patch(target, ours):
                module = importlib.import_module(f"{self.package}.{name}")
            for their_class in _classes_of(module):
                yield _on_our_backend(their_class, self.package, target, ours)


def _classes_of(module: Any) -> list[type[SimpleTestCase]]:
    return [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, SimpleTestCase)
        and value.__module__ == module.__name__
    ]


class OnOurBackend(TransactionTestCase):
    """Our backend has a table, so the tests commit; and it loads the tasks of installed apps only."""

    package: ClassVar[str]
    target: ClassVar[str]
    ours: ClassVar[type[Any]]

    @classmethod
    def setUpClass(cls) -> None:
        cls.enterClassContext(modify_settings(INSTALLED_APPS={"append": cls.package}))
        cls.enterClassContext(mock.patch(cls.target, cls.ours))
        super().setUpClass()


def _on_our_backend(
    their_class: type[SimpleTestCase], package: str, target: str, ours: type[Any]
) -> type[TransactionTestCase]:
    body: dict[str, Any] = {
        "__module__": __name__,
        "package": package,
        "available_apps": [OUR_APP, package],
        "target": target,
        "ours": ours,
    }
    for name in unittest.defaultTestLoader.getTestCaseNames(their_class):
        method = getattr(their_class, name)
        reason = SKIPS.get(f"{their_class.__name__}.{name}")
        if reason is not None:
            body[name] = unittest.skip(reason)(method)
        elif inspect.iscoroutinefunction(method):
            body[name] = _closing_connections(method)
    return type(their_class.__name__, (their_class, OnOurBackend), body)


def _closing_connections(method: Callable[..., Any]) -> Callable[..., Any]:
    """What a test has asked of the database within its event loop was on a connection of that thread."""

    @functools.wraps(method)
    async def closing(self: Any) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(connections.close_all)
            await method(self)

    return closing
