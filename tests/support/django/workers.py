"""Workers of the tests' site."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.supervisor.supervisor import Supervisor

# What the fixture `django_workers` gives: call it with arguments of the command line and settings.
Workers = Callable[..., Supervisor]
