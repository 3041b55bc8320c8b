"""What a worker asks of the database: register, finish and claim, and find out after a lost reply."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reproq_prefork.identity import WorkerIdentity
from reproq_prefork.store.connection import Backend, connect, end_backend_of, fetch
from reproq_prefork.store.statements import statement
from reproq_prefork.task_run import ClaimedRun, Settlement

ANNOUNCE_AGAIN_S = 60.0  # for whoever takes an announcement to tell of it, before another one does

NOTHING_TO_SETTLE: dict[str, Any] = {
    "run_id": None,
    "claim": None,
    "status": None,
    "result": None,
    "error": None,
    "delay_seconds": None,
    "refunded": 0,
    "last_attempt": None,
    "finish_due": False,
}


@dataclass(frozen=True, slots=True)
class Claim:
    """What `finish_and_claim` found. `settled` is False where the run was no longer this worker's."""

    settled: bool
    holds_lease: bool
    runs: tuple[ClaimedRun, ...]


class WorkerStore:
    """One worker's connection. Every method is one statement, except where it says otherwise.

    Raises `ConnectionLost` (the outcome is unknown), `StatementRefused` and `ValueRefused` (nothing was
    written).
    """

    def __init__(self, database_url: str, identity: WorkerIdentity, *, lease_s: float) -> None:
        """Connect. Raises `DatabaseUnavailable`."""
        self._identity = identity
        self._lease_s = lease_s
        self._queues = ",".join(identity.queues)
        self._connection = connect(database_url, application_name=f"reproq-prefork {identity.id}")
        self.backend: Backend = self._connection.backend

    def close(self) -> None:
        self._connection.close()

    def register(self) -> None:
        identity = self._identity
        self._run(
            "register_worker",
            {
                "worker_id": identity.id,
                "host": identity.host.name,
                "host_identity": identity.host.key,
                "pid": identity.process.pid,
                "pid_started": identity.process.started,
                "master_pid": identity.master.pid,
                "master_started": identity.master.started,
                "version": identity.version,
                "queues": self._queues,
                "lease_seconds": self._lease_s,
                "pooled": self.backend.pooled,
            },
        )

    def reconnected(self) -> bool:
        """Note this connection's server process. False: the lease has ended, and will not come back."""
        return bool(
            self._run("reconnect_worker", {"worker_id": self._identity.id, "pooled": self.backend.pooled})
        )

    def deregister(self) -> None:
        self._run("deregister_worker", {"worker_id": self._identity.id})

    def finish_and_claim(
        self, settlement: Settlement | None, *, max_runs: int, read_payload: bool = True
    ) -> Claim:
        """Record `settlement` and claim up to `max_runs` runs, in one statement and one commit."""
        rows = self._run(
            "finish_and_claim",
            {
                **(NOTHING_TO_SETTLE if settlement is None else _settlement_parameters(settlement)),
                "worker_id": self._identity.id,
                "queues": self._queues,
                "lease_seconds": self._lease_s,
                "max_runs": max_runs,
                "read_payload": read_payload,
            },
        )
        return Claim(
            settled=rows[0].settled > 0,
            holds_lease=rows[0].holds_lease,
            runs=tuple(_claimed_run(row) for row in rows if row.id is not None),
        )

    def read_payload(self, run_id: int) -> str:
        """The JSON text of one payload. `ValueRefused`: it cannot be read."""
        payload: str = self._run("read_payload", {"run_id": run_id})[0].payload
        return payload

    def held_runs(self) -> frozenset[tuple[int, int]]:
        """The (`id`, `claim`) of every run that the database says this worker holds."""
        rows = self._run("held_runs", {"worker_id": self._identity.id})
        return frozenset((row.id, row.claims) for row in rows)

    def take_finish_due(self) -> int | None:
        """A run of this worker's queues whose end is to be told; it is due again in a minute."""
        rows = self._run("take_finish_due", {"queues": self._queues, "again_seconds": ANNOUNCE_AGAIN_S})
        return rows[0].id if rows else None

    def clear_finish_due(self, run_id: int) -> None:
        """The application has been told of the end of this run."""
        self._run("clear_finish_due", {"run_id": run_id})

    def end_previous_backend(self) -> bool:
        """End the server process registered before a reconnect, and see it gone; as `end_backend_of`."""
        return end_backend_of(self._connection, self._identity.id)

    def _run(self, name: str, parameters: dict[str, Any]) -> Sequence[Any]:
        return fetch(self._connection, statement(name), parameters)


def _settlement_parameters(settlement: Settlement) -> dict[str, Any]:
    return {
        "run_id": settlement.run_id,
        "claim": settlement.claim,
        "status": settlement.status.value,
        "result": settlement.result,
        "error": None if settlement.error is None else json.dumps(settlement.error),
        "delay_seconds": settlement.delay_s,
        "refunded": int(settlement.refunded),
        "last_attempt": None if settlement.last_attempt is None else json.dumps(settlement.last_attempt),
        "finish_due": settlement.finish_due,
    }


def _claimed_run(row: Any) -> ClaimedRun:
    return ClaimedRun(
        id=row.id,
        claim=row.claims,
        payload=row.payload,
        spec_hash=row.spec_hash,
        task_path=row.task_path,
        queue_name=row.queue_name,
        attempt=row.attempts,
        max_attempts=row.max_attempts,
        timeout_s=row.timeout_seconds,
        executor=row.executor,
        atomic=row.atomic,
        retry_base_s=row.retry_base_seconds,
        retry_max_s=row.retry_max_seconds,
        priority=row.priority,
        run_after=row.run_after,
        enqueued_at=row.enqueued_at,
        started_at=row.started_at,
        last_attempted_at=row.last_attempted_at,
        worker_ids=tuple(row.worker_ids),
        errors=row.errors,
        metadata=row.metadata,
    )
