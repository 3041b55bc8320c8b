"""A site whose login or database has formats of its own: tasks are enqueued, run and read as elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connections
from django.test import override_settings

from reproq_prefork.django.families.compat import families
from reproq_prefork.django.testing import run_tasks
from reproq_prefork.model.new_run import NewRun
from tests.django.app import tasks as typed_tasks
from tests.support.postgres.odd_settings import FORMATS, set_for_database

tasks: Any = typed_tasks
FAMILY = families()[0]


@pytest.mark.parametrize("use_tz", [True, False])
@pytest.mark.parametrize("copy_from", [0, 10**9])
def test_tasks_are_enqueued_run_and_read_with_unusual_formats(
    use_tz: bool, copy_from: int, django_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reproq_prefork.store.bulk.COPY_FROM", copy_from)
    with psycopg.connect(django_database, autocommit=True) as connection:
        for name, value in FORMATS.items():
            set_for_database(connection, name, value)
    connections.close_all()
    assert call_command("check", databases=["default"]) is None  # it looks at the migrations
    backend = FAMILY.backends["default"]
    with override_settings(USE_TZ=use_tz, TIME_ZONE="Asia/Kathmandu"):
        result = tasks.add.enqueue(1, 2)
        assert (result.enqueued_at.tzinfo is not None) == use_tz
        assert tasks.add.get_result(result.id) == result
        times = (None, timedelta(hours=1), datetime(2031, 5, 17, 8, 30, 1, 250, tzinfo=UTC))
        new_runs = [NewRun.of({"text": "é"}, run_after=time, timeout_seconds=0.1) for time in times]
        for run in backend.runs.enqueue_many(new_runs):
            assert run == backend.runs.get(run.id)
            assert (run.enqueued_at.tzinfo is not None) == use_tz
            backend.runs.cancel(run.id)
        run_tasks()
        result.refresh()
        assert result.return_value == 3
        assert result.finished_at is not None
