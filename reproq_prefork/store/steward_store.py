"""What a steward asks of the database, for all the workers of its host and for lost holders anywhere."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from reproq_prefork.identity import HostIdentity, ProcessIdentity
from reproq_prefork.options import MAX_ATTEMPTS
from reproq_prefork.store.connection import (
    LOCK_TIMEOUT_S,
    Backend,
    TimeLimits,
    connect,
    end_backend_of,
    fetch,
    translated_errors,
)
from reproq_prefork.store.statements import statement
from reproq_prefork.task_run import FailureKind, LostWorker, Status

SWEEP_BATCH = 500

# As the SQL has them: reproq_receive_new_runs in the fourth migration, and cancel_run.sql.
NEW_RUNS_CHANNEL = "reproq_task_runs"
CANCEL_CHANNEL = "reproq_cancel"


@dataclass(frozen=True, slots=True)
class News:
    """What others announce: new runs, by the queue of each message, and workers with a run to be cancelled."""

    queues: tuple[str, ...]
    cancelled_at: frozenset[str]


@dataclass(frozen=True, slots=True)
class RunToCancel:
    worker_id: str
    id: int
    claim: int


@dataclass(frozen=True, slots=True)
class Sight:
    """What a look has shown. `is_finish_due` is not asked, and False, where runs are due."""

    runs_are_due: bool
    is_finish_due: bool
    to_cancel: tuple[RunToCancel, ...]


@dataclass(frozen=True, slots=True)
class ResetRun:
    id: int
    status: Status
    queue_name: str
    charged: bool


@dataclass(frozen=True, slots=True)
class RegisteredWorker:
    id: str
    process: ProcessIdentity
    master: ProcessIdentity


class StewardStore:
    """The control plane's connection. Raises as `WorkerStore` does."""

    def __init__(
        self,
        database_url: str,
        *,
        application_name: str,
        queues: Sequence[str],
        max_attempts_ceiling: int | None,
        max_lock_wait_s: float = LOCK_TIMEOUT_S,
    ) -> None:
        """Connect. Raises `DatabaseUnavailable`.

        `max_lock_wait_s`: how long what is done here may wait for a lock, and so keep renewals from being sent.
        """
        self._queues = ",".join(queues)
        # What a row says is no limit where the CHECKs are not there.
        self._max_attempts_ceiling = MAX_ATTEMPTS if max_attempts_ceiling is None else max_attempts_ceiling
        limits = TimeLimits(lock_s=min(LOCK_TIMEOUT_S, max_lock_wait_s))
        self._connection = connect(database_url, application_name=application_name, limits=limits)
        self.backend: Backend = self._connection.backend

    def close(self) -> None:
        self._connection.close()

    def fileno(self) -> int:
        """The socket: readable when the server has something to say."""
        return self._connection.fileno()

    def listen(self) -> bool:
        """Ask for `news`. False behind a pooler, where nobody would ever hear them."""
        if self.backend.pooled:
            return False
        with translated_errors():
            self._connection.execute(statement("listen"))
            self._connection.execute(statement("listen_to_cancels"))
        return True

    def await_new_runs(self) -> None:
        """Have new runs of the queues announced, until `ignore_new_runs` or the end of this connection."""
        self._run("await_new_runs", {"queues": self._queues})

    def ignore_new_runs(self) -> None:
        """Nobody of this host needs to hear of new runs for now; once for each `await_new_runs`."""
        self._run("ignore_new_runs", {"queues": self._queues})

    def news(self) -> News:
        """What has arrived so far; does not wait."""
        with translated_errors():
            heard = [(said.channel, said.payload) for said in self._connection.notifies(timeout=0)]
        return News(
            queues=tuple(payload for channel, payload in heard if channel == NEW_RUNS_CHANNEL),
            cancelled_at=frozenset(payload for channel, payload in heard if channel == CANCEL_CHANNEL),
        )

    def renew_leases(self, worker_ids: Collection[str], *, lease_s: float) -> frozenset[str]:
        """Renew, in one statement; gives the ids that were renewed. The others have lost their lease."""
        parameters = {"worker_ids": json.dumps(sorted(worker_ids)), "lease_seconds": lease_s}
        return frozenset(row.id for row in self._run("renew_leases", parameters))

    def look(self, worker_ids: Collection[str], *, announces: bool) -> Sight:
        """What there is to do in the queues, and which runs of these workers somebody has cancelled.

        `announces`: ends that the application is to be told of are looked for too.
        """
        parameters = {
            "queues": self._queues,
            "announces": announces,
            "worker_ids": json.dumps(sorted(worker_ids)),
        }
        rows = self._run("look", parameters)
        return Sight(
            runs_are_due=rows[0].runs_are_due,
            is_finish_due=rows[0].is_finish_due,
            to_cancel=tuple(
                RunToCancel(row.leased_by, row.id, row.claims) for row in rows if row.id is not None
            ),
        )

    def end_backend_of(self, worker_id: str) -> bool:
        """End a dead worker's server process and see it gone; several statements, at most 2 s.

        False: it would not go in that time (or we may not end it), so what it does may yet be committed.
        """
        return end_backend_of(self._connection, worker_id)

    def reset_worker(
        self, lost: LostWorker, *, keep_registration: bool = False, only_run_id: int | None = None
    ) -> tuple[ResetRun, ...]:
        """Put back, or fail, all that a dead worker held, or one run of it; forget the worker."""
        started_run_id, started_claim = lost.started or (None, None)
        rows = self._run(
            "reset_worker",
            {
                "worker_id": lost.worker_id,
                "started_run_id": started_run_id,
                "started_claim": started_claim,
                "charge_all": lost.charge_all,
                "refund_started": lost.refund,
                "max_attempts_ceiling": self._max_attempts_ceiling,
                "error": _error(lost.kind, lost.message),
                "keep_registration": keep_registration,
                "only_run_id": only_run_id,
            },
        )
        return tuple(_reset_run(row) for row in rows)

    def held_runs(self, worker_id: str) -> tuple[int, ...]:
        """The ids of the runs that a worker holds."""
        return tuple(sorted(row.id for row in self._run("held_runs", {"worker_id": worker_id})))

    def hand_back_waiting(self, worker_id: str, run_id: int, claim: int) -> tuple[ResetRun, ...]:
        """Put back what a worker has claimed together with this run and not started, if it is still at it."""
        parameters = {"worker_id": worker_id, "run_id": run_id, "claim": claim}
        return tuple(_reset_run(row) for row in self._run("hand_back_waiting", parameters))

    def sweep_expired(self, *, only_run_id: int | None = None) -> tuple[ResetRun, ...]:
        """Put back, or fail, runs whose holder's lease has ended, wherever it was; at most 500 a call, or one.

        Workers and waiters that are gone without a goodbye are forgotten with it.
        """
        rows = self._run(
            "sweep_expired",
            {
                "max_attempts_ceiling": self._max_attempts_ceiling,
                "error": _error(FailureKind.LEASE_EXPIRED, "the worker's lease ended before the task did"),
                "max_runs": SWEEP_BATCH,
                "only_run_id": only_run_id,
            },
        )
        return tuple(_reset_run(row) for row in rows)

    def expired_runs(self) -> tuple[int, ...]:
        """The ids of the runs that `sweep_expired` would reset."""
        return tuple(row.id for row in self._run("expired_runs", {"max_runs": SWEEP_BATCH}))

    def fail_run(self, run_id: int, *, holder: str | None, why: str) -> tuple[ResetRun, ...]:
        """End a run that cannot be reset. `holder`: the dead worker that holds it; None: its lease has ended."""
        parameters = {
            "run_id": run_id,
            "holder": "" if holder is None else holder,
            "is_expired": holder is None,
            "error": _error(FailureKind.WORKER_LOST, why),
        }
        return tuple(_reset_run(row) for row in self._run("fail_run", parameters))

    def workers_of_host(self, host: HostIdentity) -> tuple[RegisteredWorker, ...]:
        rows = self._run("workers_of_host", {"host_identity": host.key})
        return tuple(
            RegisteredWorker(
                id=row.id,
                process=ProcessIdentity(row.pid, row.pid_started),
                master=ProcessIdentity(row.master_pid, row.master_started),
            )
            for row in rows
        )

    def queues_are_drained(self) -> bool:
        drained: bool = self._run("queues_are_drained", {"queues": self._queues})[0].drained
        return drained

    def _run(self, name: str, parameters: dict[str, Any]) -> Sequence[Any]:
        return fetch(self._connection, statement(name), parameters)


def _error(kind: FailureKind, message: str) -> str:
    return json.dumps({"kind": kind.value, "message": message})


def _reset_run(row: Any) -> ResetRun:
    return ResetRun(id=row.id, status=Status(row.status), queue_name=row.queue_name, charged=row.charged)
