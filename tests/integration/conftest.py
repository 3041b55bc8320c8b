"""The two stores that most of these tests need, on the database of the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from reproq_prefork.store.steward_store import StewardStore
from reproq_prefork.store.worker_store import WorkerStore
from tests.support.rows.stores import steward_store, worker_store


@pytest.fixture
def worker(database_url: str) -> Iterator[WorkerStore]:
    with closing(worker_store(database_url)) as store:
        yield store


@pytest.fixture
def steward(database_url: str) -> Iterator[StewardStore]:
    with closing(steward_store(database_url)) as store:
        yield store
