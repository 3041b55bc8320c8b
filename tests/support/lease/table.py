"""The table as the lease machine sees it: read in full after each step, and aged by SQL in place of waiting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from reproq_prefork.store.deadline import DeadlineConnection
from tests.support.lease.model import Edge

ROWS = """
    select
        id, queue_name, spec_hash, priority, max_attempts, enqueued_at, run_after, unique_key, atomic, replay_of,
        status, attempts, claims, leased_by, worker_ids,
        coalesce(lease_expires_at < now(), false) as lease_is_past,
        array(
            select entry ->> 'kind' from jsonb_array_elements(errors) with ordinality as each (entry, place)
            order by place
        ) as errors,
        result, cancel_requested_at is not null as is_cancel_requested, started_at is not null as has_started,
        finished_at is not null as has_finished
    from task_runs
"""
# One answer for what is not in task_runs: the clock, and lists of who is registered and of what was noted.
REST = """
    select
        clock_timestamp() as now,
        array(
            select array[id, case
                    when lease_expires_at > now() then 'held'
                    when lease_expires_at > now() - interval '1 minute' then 'past'
                    else 'long past'
                end]
            from reproq_workers
        ) as workers,
        array(select array[run_id::text, old_status, new_status] from audit) as edges
"""
AGES = {"past": "5 seconds", "long past": "1 hour"}


class LeaseTable:
    """`made_at`: a moment that is past, by the server's clock."""

    def __init__(self, url: str, connection: DeadlineConnection) -> None:
        self.url = url
        self.connection = connection
        self.made_at = self.now()

    def clear(self) -> None:
        for statement in ("delete from task_runs", "delete from reproq_workers", "delete from audit"):
            self.connection.execute(statement)

    def now(self) -> datetime:
        row = self.connection.execute("select clock_timestamp() as now").fetchone()
        assert row is not None
        now: datetime = row.now
        return now

    def read(self) -> tuple[dict[int, Any], dict[str, str], list[Edge], datetime]:
        """The rows, the leases of the workers, the changes of status that there were, and the time."""
        rows = {row.id: row for row in self.connection.execute(ROWS)}
        rest = self.connection.execute(REST).fetchone()
        assert rest is not None
        edges = [(int(run_id), old, new) for run_id, old, new in rest.edges]
        return rows, dict(rest.workers), edges, rest.now

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Not one row is written, not even with what it had."""
        before = self._row_versions()
        yield
        assert self._row_versions() == before

    def _row_versions(self) -> list[Any]:
        return self.connection.execute(
            "select id, xmin::text, ctid::text from task_runs order by id"
        ).fetchall()

    def delete(self, run_id: int) -> None:
        self.connection.execute("delete from task_runs where id = %s", [run_id])

    def make_due(self, run_id: int) -> datetime:
        row = self.connection.execute(
            "update task_runs set run_after = now() - interval '1 minute' where id = %s returning run_after",
            [run_id],
        ).fetchone()
        assert row is not None
        run_after: datetime = row.run_after
        return run_after

    def end_lease_of_run(self, run_id: int) -> None:
        self.connection.execute(
            "update task_runs set lease_expires_at = now() - interval '1 second' where id = %s", [run_id]
        )

    def end_lease_of_worker(self, worker_id: str, lease: str) -> None:
        self.connection.execute(
            "update reproq_workers set lease_expires_at = now() - %s::interval where id = %s",
            [AGES[lease], worker_id],
        )
