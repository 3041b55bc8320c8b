"""The claim stays cheap in the cases that kill queues: a guard on what its plan reads, not on time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest
from psycopg import sql

from reproq_prefork.store.statements import statement
from tests.support.postgres.databases import new_database
from tests.support.postgres.servers import Server

MAX_BUFFERS = 50
QUEUES = ("default", "mail", "reports")

# 100,000 due; 300,000 for tomorrow, at the same priority as those and at a higher one; 200,000 finished.
FILL = """
insert into task_runs (
    payload, spec_hash, queue_name, priority, run_after, status, attempts, claims, finished_at, enqueued_at
)
select
    '{"v": 1, "task": "a.b", "args": [], "kwargs": {}}',
    md5(n::text) || md5(n::text),
    (array['default', 'mail', 'reports'])[1 + n % 3],
    case when kind = 'scheduled' then (n / 3) % 2 * 10 else 0 end,
    case when kind = 'scheduled' then now() + interval '1 day' + n * interval '1 ms' end,
    case when kind = 'finished' then 'SUCCESSFUL' else 'PENDING' end,
    case when kind = 'finished' then 1 else 0 end,
    case when kind = 'finished' then 1 else 0 end,
    case when kind = 'finished' then now() end,
    now() - interval '1 hour' + n * interval '1 ms'
from (values ('scheduled', 300000), ('finished', 200000), ('due', 100000)) as kinds (kind, runs)
cross join lateral generate_series(1, runs) as n
"""
WORKER = """
insert into reproq_workers (
    id, host, host_identity, pid, pid_started, master_pid, master_started, version, queues, lease_expires_at
)
values ('w', 'h', 'h', 1, 1, 1, 1, '0', '{}', now() + interval '1 hour')
"""


@pytest.fixture(scope="module")
def crowded_url(server: Server, template_url: str) -> Iterator[str]:
    with new_database(server.url, template_url) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            with connection.transaction():
                connection.execute("set local session_replication_role = replica")  # no triggers
                connection.execute(FILL)
            connection.execute(WORKER)
            connection.execute("vacuum analyze task_runs")
        yield url


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def buffers(node: dict[str, Any]) -> int:
    return int(node["Shared Hit Blocks"]) + int(node["Shared Read Blocks"])


def plan_of(url: str, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The plan of a statement, as it was executed and taken back, with plans that do not see the parameters."""
    with psycopg.connect(url) as connection:
        connection.execute("set plan_cache_mode = force_generic_plan")
        connection.execute("set max_parallel_workers_per_gather = 0")
        text = "prepare it as " + statement(name)
        # PREPARE and EXECUTE take no parameters from outside, so the names become numbers here.
        for number, parameter in enumerate(parameters, 1):
            text = text.replace(f"%({parameter})s", f"${number}")
        connection.execute(text.encode())
        values = ", ".join(sql.Literal(value).as_string(connection) for value in parameters.values())
        rows = connection.execute(
            f"explain (analyze, buffers, format json) execute it ({values})".encode()
        ).fetchall()
        connection.rollback()
    (report,) = rows[0][0]
    plan: dict[str, Any] = report["Plan"]
    return plan


def claim_plan(
    url: str, queues: tuple[str, ...], max_runs: int, *, behind: tuple[str, int] | None = None
) -> dict[str, Any]:
    """The plan of a worker's claim; `behind`: the due time and the id of the last run of the one queue."""
    places: list[dict[str, Any]] = [{"queue_name": queue} for queue in queues]
    if behind is not None:
        due, run_id = behind
        places = [
            {"queue_name": queues[0], "above": 0},
            {"queue_name": queues[0], "priority": 0, "due": due, "id": run_id},
        ]
    claim = {
        "settlements": "[]",
        "worker_id": "w",
        "places": json.dumps(places),
        "lease_seconds": 30.0,
        "max_runs": max_runs,
    }
    return plan_of(url, "finish_and_claim", claim)


def candidate(plan: dict[str, Any]) -> dict[str, Any]:
    (found,) = [node for node in nodes(plan) if node.get("Subplan Name") == "CTE candidate"]
    return found


@pytest.mark.parametrize("max_runs", [1, 8])
@pytest.mark.parametrize("queues", [QUEUES[:1], QUEUES], ids=["one queue", "three queues"])
def test_a_claim_among_many_scheduled_runs_reads_little(
    crowded_url: str, queues: tuple[str, ...], max_runs: int
) -> None:
    plan = claim_plan(crowded_url, queues, max_runs)
    walk = candidate(plan)
    assert walk["Actual Rows"] >= max_runs
    # One tree descent a queue and priority (4 buffers at this size), and 2 for each row that is locked.
    assert buffers(walk) < MAX_BUFFERS + 2 * len(queues) * (max_runs - 1), json.dumps(walk, indent=1)
    assert {node["Node Type"] for node in nodes(plan)}.isdisjoint({"Seq Scan", "Bitmap Heap Scan"})


def test_a_claim_that_finds_nothing_reads_little_too(crowded_url: str) -> None:
    """An idle worker sends this at each poll: all runs of the queue are scheduled for tomorrow."""
    with psycopg.connect(crowded_url, autocommit=True) as connection:
        connection.execute("delete from task_runs where queue_name = 'mail' and run_after is null")
        connection.execute("vacuum task_runs")
    walk = candidate(claim_plan(crowded_url, ("mail",), 1))
    assert walk["Actual Rows"] == 0
    assert buffers(walk) < MAX_BUFFERS, json.dumps(walk, indent=1)


@pytest.mark.parametrize("queues", [QUEUES[:1], QUEUES], ids=["one queue", "three queues"])
@pytest.mark.parametrize("due", [True, False])
def test_the_poll_of_a_steward_reads_little(crowded_url: str, queues: tuple[str, ...], due: bool) -> None:
    """Each host sends this at each poll."""
    look = {
        "queues": ",".join(queues if due else ("mail",)),
        "announces": True,
        "worker_ids": '["w", "w1", "w2"]',
    }
    if not due:
        with psycopg.connect(crowded_url, autocommit=True) as connection:
            connection.execute("delete from task_runs where queue_name = 'mail' and run_after is null")
            connection.execute("vacuum task_runs")
    plan = plan_of(crowded_url, "look", look)
    assert buffers(plan) < MAX_BUFFERS, json.dumps(plan, indent=1)
    assert {node["Node Type"] for node in nodes(plan)}.isdisjoint({"Seq Scan", "Bitmap Heap Scan"})


def test_a_claim_from_a_position_reads_little_despite_dead_index_entries(
    crowded_url: str,
) -> None:
    """From the head it scans the dead entries that a long drain or a long transaction elsewhere leaves."""
    with psycopg.connect(crowded_url) as old, psycopg.connect(crowded_url, autocommit=True) as connection:
        old.execute("set transaction isolation level repeatable read")
        old.execute("select from task_runs limit 1")
        row = connection.execute(
            "with done as ("
            " update task_runs set status = 'SUCCESSFUL' where id in ("
            "  select id from task_runs where status = 'PENDING' and queue_name = 'reports' and priority = 0"
            "  order by coalesce(run_after, enqueued_at), id limit 20000)"
            " returning enqueued_at, id)"
            " select enqueued_at::text, id from done order by enqueued_at desc, id desc limit 1"
        ).fetchone()
        assert row is not None
        from_head = candidate(claim_plan(crowded_url, ("reports",), 1))
        behind = candidate(claim_plan(crowded_url, ("reports",), 1, behind=row))
    assert from_head["Actual Rows"] == behind["Actual Rows"] == 1
    assert buffers(from_head) > 100
    assert buffers(behind) < MAX_BUFFERS, json.dumps(behind, indent=1)
