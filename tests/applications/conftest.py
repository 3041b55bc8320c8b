"""An application of a test's own, and a server that receives what it reports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import invalidate_caches
from pathlib import Path

import pytest

from tests.applications.collector import Collector
from tests.support.supervisor.application import Application


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Application]:
    name = f"application_{tmp_path.name}"
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Application(tmp_path, name)
    sys.modules.pop(name, None)
    invalidate_caches()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector().serving() as collector:
        yield collector
