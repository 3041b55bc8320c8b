"""`enqueue` and its like on Django's own connection, in the transaction that is open there."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, connection, connections, transaction

from reproq_prefork import (
    NewRun,
    Status,
    acancel,
    aenqueue,
    aenqueue_many,
    aget_run,
    arequeue,
    await_,
    cancel,
    enqueue,
    enqueue_many,
    get_run,
    requeue,
    wait,
)
from reproq_prefork.store import bulk
from reproq_prefork.store.task_runs import EndNotVisible
from tests.support.django.databases import run_async


def payloads(url: str) -> list[Any]:
    """As another session sees them."""
    with psycopg.connect(url) as other:
        return [row[0] for row in other.execute("select payload from task_runs order by id")]


@pytest.fixture(params=["INSERT", "COPY"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "COPY":
        monkeypatch.setattr(bulk, "COPY_FROM", 1)
    return str(request.param)


@pytest.mark.parametrize("proxy", [True, False], ids=["connection", "connections['default']"])
def test_a_run_is_in_the_transaction_of_django(django_database: str, proxy: bool, way: str) -> None:
    given: Any = connection if proxy else connections["default"]
    with transaction.atomic():
        run = enqueue(given, {"n": 1}, unique_key="k", run_after=datetime(2031, 5, 17, tzinfo=UTC))
        enqueue_many(given, [NewRun.of(2), NewRun.of(3)])
        assert get_run(given, run.id) == run
        assert payloads(django_database) == []
    assert payloads(django_database) == [{"n": 1}, 2, 3]
    with transaction.atomic():
        enqueue(given, 4)
        transaction.set_rollback(True)
    assert cancel(given, run.id).status is Status.CANCELLED
    assert wait(given, run.id, timeout=10).id == run.id
    assert requeue(given, run_id=run.id).replay_of == run.id
    assert payloads(django_database) == [{"n": 1}, 2, 3, {"n": 1}]


def test_a_wait_inside_the_transaction_that_enqueued_is_refused(django_database: str) -> None:
    with transaction.atomic(), pytest.raises(EndNotVisible, match="commit before you wait"):
        wait(connection, enqueue(connection, {}).id)
    run = enqueue(connection, {})
    with pytest.raises(TimeoutError, match=f"run {run.id} has not finished within 0.1 s"):
        wait(connection, run.id, timeout=0.1)


def test_the_errors_are_those_of_django(django_database: str, way: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("alter table task_runs add constraint no_nines check (payload <> '9')")
    with pytest.raises(DatabaseError, match="no_nines"):
        enqueue(connection, 9)
    with pytest.raises(DatabaseError, match="no_nines"):
        enqueue_many(connection, [NewRun.of(8), NewRun.of(9)])
    assert payloads(django_database) == []


@pytest.mark.parametrize("proxy", [True, False], ids=["connection", "connections['default']"])
def test_a_coroutine_enqueues_on_the_connection_of_django(
    django_database: str, proxy: bool, way: str
) -> None:
    given: Any = connection if proxy else connections["default"]

    async def main() -> None:
        run = await aenqueue(given, {"n": 1})
        assert [each.payload for each in await aenqueue_many(given, [NewRun.of(2), NewRun.of(3)])] == [2, 3]
        assert (await acancel(given, run.id)).status is Status.CANCELLED
        assert (await await_(given, run.id, timeout=10)).is_finished
        again = await arequeue(given, run_id=run.id)
        assert (await aget_run(given, again.id)).replay_of == run.id
        with pytest.raises(TimeoutError):
            await await_(given, again.id, timeout=0.1)

    run_async(main())
    assert payloads(django_database) == [{"n": 1}, 2, 3, {"n": 1}]


def test_what_is_not_a_connection_to_postgresql_is_refused(django_database: str) -> None:
    from django.db.backends.sqlite3.base import DatabaseWrapper

    sqlite: Any = DatabaseWrapper({**connections["default"].settings_dict, "NAME": ":memory:"}, "other")
    with pytest.raises(
        TypeError, match=r"^enqueue\(\) cannot use a .*it leads to SQLite, so give it the one"
    ):
        enqueue(sqlite, {})
    with connection.cursor() as cursor:
        for given in (cursor, transaction.atomic()):
            with pytest.raises(TypeError, match=r"takes a connection, enqueue\(django.db.connection, …\)"):
                enqueue(given, {})  # type: ignore[arg-type]


def test_the_connection_of_another_thread_is_refused(django_database: str) -> None:
    """Its transaction is not the one that is open here."""
    given: Any = connections["default"]
    said: list[str] = []

    def use() -> None:
        try:
            enqueue(given, {})
        except TypeError as error:
            said.append(str(error))
        finally:
            connections.close_all()

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert "it belongs to another thread" in said[0]
