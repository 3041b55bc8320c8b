"""Whatever a producer's session says of formats, its runs are enqueued and read; its settings stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from reproq_prefork import NewRun, cancel, enqueue, enqueue_many, get_run, requeue
from reproq_prefork.model.run import TaskRun
from reproq_prefork.store import bulk
from tests.support.postgres.odd_settings import FORMATS, MEANINGS, set_for_database
from tests.support.supervisor.supervisor import Connection

DUE = datetime(2031, 5, 17, 8, 30, 1, 250, tzinfo=UTC)
# Other text cannot be sent at all over a connection of LATIN1, and limits of time are the producer's own.
PAYLOAD = {"text": "50 % of 'it' \\ é", "numbers": [0.1, 1e300, 2**70]}
OF_A_PRODUCER = {
    **FORMATS,
    **{name: value for name, value in MEANINGS.items() if "timeout" not in name and name != "search_path"},
}


@pytest.fixture
def plain(database_url: str) -> Iterator[Connection]:
    """A connection that began before anything was set."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def _all_of(producer: psycopg.Connection[Any]) -> list[TaskRun]:
    """What each call gives that a producer may make, and what is read of it by the same connection."""
    how: dict[str, Any] = {"run_after": DUE, "timeout_seconds": 0.1, "retry_base_seconds": 1 / 3}
    first = enqueue(producer, PAYLOAD, unique_key="key", **how)
    held = enqueue(producer, PAYLOAD, unique_key="key", **how)
    delayed = enqueue(producer, PAYLOAD, run_after=timedelta(hours=1))
    new_runs = [NewRun.of(PAYLOAD, **how) for _ in range(3)]
    many = [*enqueue_many(producer, new_runs), *enqueue_many(producer, [NewRun.of({}, unique_key="key")])]
    cancelled = cancel(producer, delayed.id)
    again = requeue(producer, run_id=cancelled.id)
    read = [get_run(producer, run.id) for run in (first, again, *many)]
    assert [run.id for run in (held, many[-1])] == [first.id, first.id]
    return [first, held, delayed, *many, cancelled, again, *read]


@pytest.mark.parametrize("copy_from", [0, 10**9], ids=["by COPY", "by INSERT"])
@pytest.mark.parametrize(
    "names", [*([name] for name in OF_A_PRODUCER), [*OF_A_PRODUCER]], ids=[*OF_A_PRODUCER, "all"]
)
def test_runs_are_enqueued_and_read_with_any_session_settings(
    database_url: str, plain: Connection, monkeypatch: pytest.MonkeyPatch, names: list[str], copy_from: int
) -> None:
    monkeypatch.setattr(bulk, "COPY_FROM", copy_from)
    for name in names:
        set_for_database(plain, name, OF_A_PRODUCER[name])
    with psycopg.connect(database_url, autocommit=True) as producer:
        settings = "select name, setting from pg_settings where name not like 'plpgsql%' order by name"
        before = producer.execute(settings).fetchall()
        given = _all_of(producer)
        assert producer.execute(settings).fetchall() == before
    for run in given:
        seen = get_run(plain, run.id)
        assert (run.payload, run.enqueued_at, run.run_after) == (
            seen.payload,
            seen.enqueued_at,
            seen.run_after,
        )
        if "extra_float_digits" not in names:
            assert (run.timeout_seconds, run.retry_base_seconds) == (
                seen.timeout_seconds,
                seen.retry_base_seconds,
            )
        assert seen.enqueued_at <= datetime.now(UTC)


def test_a_reload_of_the_server_does_not_prevent_producers_from_reading(
    database_url: str, plain: Connection
) -> None:
    with psycopg.connect(database_url, autocommit=True) as producer:
        run = enqueue(producer, PAYLOAD, run_after=DUE)
        producer.execute("set DateStyle = 'German'")
        assert get_run(producer, run.id) == get_run(plain, run.id)
        producer.execute("set DateStyle = 'ISO'")
        assert get_run(producer, run.id) == get_run(plain, run.id)
