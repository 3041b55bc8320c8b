"""Whatever is set for the database, what our connections send and read is the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest

from reproq_prefork.model.run import Status
from reproq_prefork.model.settlement import Settlement
from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.operator_store import OperatorStore
from reproq_prefork.store.outcomes import ValueRefused
from reproq_prefork.store.worker_store import WorkerStore
from tests.support.postgres.databases import new_database
from tests.support.postgres.odd_settings import ODD, set_for_database
from tests.support.postgres.pgbouncer import pooler
from tests.support.postgres.servers import Server
from tests.support.rows.stores import HOST, steward_store, worker_store
from tests.support.supervisor.supervisor import Connection, add_run

PAYLOAD = {"text": "50 % of 'it' \\ costs 9 €, 日本", "numbers": [0.1, 1e300, 2**70]}


@contextmanager
def _way_to(database_url: str, way: str) -> Iterator[str]:
    """Opened after the settings are made: a pooler keeps its connections."""
    if way == "behind a pooler":
        with pooler(database_url, connections=2) as url:
            yield url
    else:
        yield database_url


@pytest.fixture
def plain(database_url: str) -> Iterator[Connection]:
    """A connection that began before anything was set."""
    with psycopg.connect(database_url, autocommit=True, client_encoding="UTF8") as connection:
        yield connection


def _life_of_a_run(url: str, plain: Connection) -> dict[str, Any]:
    """What a worker, a steward and an operator read of a run that is retried once."""
    run_id = add_run(
        plain, PAYLOAD, run_after="2020-01-02 03:04:05.678+00", timeout_seconds=0.1, retry_base_seconds=1 / 3
    )
    read: dict[str, Any] = {}
    with (
        closing(worker_store(url)) as worker,
        closing(steward_store(url)) as steward,
        closing(OperatorStore(url)) as operator,
    ):
        look = steward.look(["w"], announces=True)
        assert look.announced_share < 1  # of a queue that the databases of all tests share
        read["look"] = look.runs_are_due, look.is_finish_due, look.to_cancel
        claim = worker.finish_and_claim([], max_runs=5)
        (first,) = claim.runs
        error = {"kind": "exception", "message": "9 € \\ 'x'"}
        retry = Settlement(run_id, first.claim, Status.PENDING, error=error, delay_s=0.0)
        worker.finish_and_claim([retry], max_runs=0)
        (second,) = worker.finish_and_claim([], max_runs=5).runs
        read["payload"] = second.payload
        read["timeout"], read["retry"] = second.timeout_s, second.retry_base_s
        read["renewed"] = steward.renew_leases(["w", "v"], lease_s=60)
        read["swept"] = steward.sweep_expired()
        read["workers"] = [each.id for each in steward.workers_of_host(HOST)]
        read["at work"] = [(each.id, [run.id == run_id for run in each.runs]) for each in operator.workers()]
        read["held"] = worker.held_runs() == {(run_id, second.claim)}
        ended = Settlement(run_id, second.claim, Status.SUCCESSFUL, result='{"x":0.1,"y":"9 €"}')
        read["settled"] = worker.finish_and_claim([ended], max_runs=0).settled
        row = plain.execute("select errors, result from task_runs where id = %s", [run_id]).fetchone()
        assert row is not None
        (entry,) = row[0]
        read["error"], read["result"], read["zone"] = entry["message"], row[1], entry["ended_at"][-6:]
        read["refused"] = _refused(worker)
        # A statement that takes its time, while the other two connections are idle.
        read["waited"] = fetch(operator.connection, "select 1 as it from pg_sleep(0.4)", {})[0].it
        read["swept later"] = steward.sweep_expired()
        read["due in the past"] = fetch(operator.connection, "select now() < '2500-01-01' as it", {})[0].it
        worker.deregister()
    return read


def _refused(worker: WorkerStore) -> str:
    """What the server says of a value that it does not take; the session goes on after it."""
    with pytest.raises(ValueRefused) as refused:
        worker.finish_and_claim([Settlement(1, 1, Status.SUCCESSFUL, result='"\\u0000"')], max_runs=0)
    return str(refused.value).partition(";")[0]


@pytest.fixture(scope="module")
def usual(server: Server, template_url: str) -> dict[str, Any]:
    """What is read where nothing is set."""
    with (
        new_database(server.url, template_url) as url,
        psycopg.connect(url, autocommit=True) as plain,
    ):
        return _life_of_a_run(url, plain)


@pytest.mark.parametrize("way", ["a direct connection", "behind a pooler"])
@pytest.mark.parametrize("names", [*([name] for name in ODD), [*ODD]], ids=[*ODD, "all of them"])
def test_reads_and_writes_do_not_depend_on_the_settings(
    database_url: str, plain: Connection, usual: dict[str, Any], names: list[str], way: str
) -> None:
    for name in names:
        set_for_database(plain, name, ODD[name])
    with _way_to(database_url, way) as url:
        assert _life_of_a_run(url, plain) == usual
