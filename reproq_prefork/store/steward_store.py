"""What a steward asks of the database: for all workers of its host, and for lost holders on any host."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from reproq_prefork.model.identity import HostIdentity, ProcessIdentity
from reproq_prefork.model.limits import MAX_ATTEMPTS
from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import LostWorker, Status, Token
from reproq_prefork.store.connection import (
    BACKEND_GONE_POLL_S,
    BACKEND_GONE_TIMEOUT_S,
    LOCK_TIMEOUT_S,
    STATEMENT_TIMEOUT_S,
    TimeLimits,
)
from reproq_prefork.store.copies import connect_unless_copy
from reproq_prefork.store.deadline import CLIENT_DEADLINE_S, ServerProcess
from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.inbox import FLOOD_PATIENCE_S, Inbox
from reproq_prefork.store.opening import GoesOn, always
from reproq_prefork.store.outcomes import ConnectionLost, translated_errors
from reproq_prefork.store.pooling import PROBE_LIMITS, hears_notifications
from reproq_prefork.store.statements import statement

SWEEP_BATCH = 500
WAITERS_BATCH = 1_000

# The same names are in the SQL: reproq_receive_new_runs in the fourth migration, and cancel_run.sql.
NEW_RUNS_CHANNEL = "reproq_task_runs"
CANCEL_CHANNEL = "reproq_cancel"


@dataclass(frozen=True, slots=True)
class News:
    """What others notify: new runs, by the queue of each message, and workers with a run to cancel.

    If there are very many messages, only the first are read; `messages` and `payload_bytes` count all.
    """

    queues: tuple[str, ...] = ()
    cancelled_at: frozenset[str] = frozenset()
    messages: int = 0
    payload_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RunToCancel:
    worker_id: str
    id: int
    claim: int


@dataclass(frozen=True, slots=True)
class Sight:
    """The result of a look. If runs are due, `is_finish_due` is not asked, and is False.

    `announced_share`: how full the server's memory for notifications is, from 0 to 1.
    """

    runs_are_due: bool
    is_finish_due: bool
    to_cancel: tuple[RunToCancel, ...]
    announced_share: float = 0.0


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
    """The steward's connection. Raises as `WorkerStore` does.

    `before_each` is called before each statement except a renewal. A steward does everything with statements of
    this store, so `before_each` waits for one statement at most.
    """

    before_each: Callable[[], object]

    def __init__(
        self,
        database_url: str,
        *,
        application_name: str,
        queues: Sequence[str],
        max_attempts_ceiling: int | None,
        max_lock_wait_s: float = LOCK_TIMEOUT_S,
        max_statement_s: float = STATEMENT_TIMEOUT_S,
        system: int | None = None,
        goes_on: GoesOn = always,
    ) -> None:
        """Connect; `system` and `goes_on` as in `connect`. Raises `DatabaseUnavailable`, also for a copy.

        `max_lock_wait_s`, `max_statement_s`: how long a statement may wait for a lock, and how long it may take.
        The next renewal waits until it has ended.
        """
        self._queues = ",".join(queues)
        self._awaited: set[str] = set()
        # Without the CHECK constraints, the value in a row may be too large.
        self._max_attempts_ceiling = MAX_ATTEMPTS if max_attempts_ceiling is None else max_attempts_ceiling
        statement_s = min(STATEMENT_TIMEOUT_S, max_statement_s)
        limits = TimeLimits(
            statement_s=statement_s,
            lock_s=min(LOCK_TIMEOUT_S, max_lock_wait_s),
            client_s=statement_s + CLIENT_DEADLINE_S - STATEMENT_TIMEOUT_S,
        )
        self._connect = partial(
            connect_unless_copy,
            database_url,
            application_name=application_name,
            system=system,
            goes_on=goes_on,
        )
        self._connection = self._connect(limits=limits)
        self.backend: ServerProcess = self._connection.backend
        self._inbox = Inbox(self._connection.pgconn, patience_s=min(FLOOD_PATIENCE_S, max_lock_wait_s))
        self._connection.inbox = self._inbox
        self.before_each = lambda: None

    def close(self) -> None:
        self._connection.close()

    def fileno(self) -> int:
        """The socket: it is readable when the server has sent something."""
        return self._connection.fileno()

    @property
    def was_flooded(self) -> bool:
        """Whether this connection was lost because notifications delayed an answer for too long."""
        return self._inbox.is_flooded

    def can_listen(self) -> bool:
        """Whether this connection receives notifications: not behind a transaction pooler."""
        if not self.backend.pooled:
            return True
        self._connection.inbox = None  # notifications are now the answer to this question
        try:
            return hears_notifications(self._connection, partial(self._connect, limits=PROBE_LIMITS))
        finally:
            self._connection.inbox = self._inbox

    def listen(self) -> None:
        """Ask for `news`. Not behind a transaction pooler, where they would never arrive."""
        self._run("listen", {})
        self._run("listen_to_cancels", {})

    def stop_listening(self) -> None:
        """Ask for no more `news`, and for no notifications of new runs."""
        self.ignore_new_runs()
        self._run("stop_listening", {})

    def await_new_runs(self) -> tuple[str, ...]:
        """Ask for notifications of new runs in the queues, until `ignore_new_runs` or the end of this connection.

        Returns the queues for which that failed, since another session holds their advisory lock: try them again.
        """
        missing = [queue for queue in self._queues.split(",") if queue not in self._awaited]
        rows = self._run("await_new_runs", {"queues": ",".join(missing)})
        self._awaited.update(row.queue for row in rows if row.held)
        return tuple(row.queue for row in rows if not row.held)

    def ignore_new_runs(self) -> None:
        """No process of this host needs notifications of new runs for now."""
        if self._awaited:
            self._run("ignore_new_runs", {"queues": ",".join(self._awaited)})
            self._awaited.clear()

    def news(self) -> News:
        """What has arrived so far, up to a limit. It does not wait."""
        with translated_errors():
            self._inbox.read()
        heard = self._inbox.take()
        return News(
            queues=tuple(payload for channel, payload in heard.kept if channel == NEW_RUNS_CHANNEL),
            cancelled_at=frozenset(payload for channel, payload in heard.kept if channel == CANCEL_CHANNEL),
            messages=heard.messages,
            payload_bytes=heard.payload_bytes,
        )

    def renew_leases(self, worker_ids: Collection[str], *, lease_s: float) -> frozenset[str]:
        """Renew in one statement. Returns the ids that were renewed. The others have lost their lease."""
        parameters = {"worker_ids": json.dumps(sorted(worker_ids)), "lease_seconds": lease_s}
        return frozenset(row.id for row in self._send("renew_leases", parameters))

    def look(self, worker_ids: Collection[str], *, announces: bool) -> Sight:
        """What there is to do in the queues, and which runs of these workers were cancelled.

        Also raises ConnectionLost if the server has become read-only: it would answer for ever that nothing is
        due. `announces`: also look for ends to announce to the application.
        """
        parameters = {
            "queues": self._queues,
            "announces": announces,
            "worker_ids": json.dumps(sorted(worker_ids)),
        }
        rows = self._run("look", parameters)
        if rows[0].is_read_only:
            raise ConnectionLost("the server refuses to write by now")
        return Sight(
            runs_are_due=rows[0].runs_are_due,
            is_finish_due=rows[0].is_finish_due,
            to_cancel=tuple(
                RunToCancel(row.leased_by, row.id, row.claims) for row in rows if row.id is not None
            ),
            announced_share=rows[0].announced_share,
        )

    def end_backend_of(self, worker_id: str, *, within_s: float = BACKEND_GONE_TIMEOUT_S) -> bool:
        """End a dead worker's server process and see it gone. Several statements.

        False: it did not go in that time (or we may not end it), so it may still commit.
        """
        gives_up_at = time.monotonic() + within_s
        while self._run("terminate_backend", {"worker_id": worker_id}):
            if time.monotonic() > gives_up_at:
                return False
            time.sleep(BACKEND_GONE_POLL_S)
        return True

    def reset_worker(
        self, lost: LostWorker, *, keep_registration: bool = False, only: Collection[int] | None = None
    ) -> tuple[ResetRun, ...]:
        """Put back, or fail, all runs that a dead worker held (or only these), and delete its registration."""
        started = [*lost.unrecorded, *([lost.started] if lost.started else [])]
        rows = self._run(
            "reset_worker",
            {
                "worker_id": lost.worker_id,
                "started": json.dumps([{"id": run_id, "claim": claim} for run_id, claim in started]),
                "charge_all": lost.charge_all,
                "refund_started": lost.refund,
                "max_attempts_ceiling": self._max_attempts_ceiling,
                "error": _error(lost.kind, lost.message),
                "keep_registration": keep_registration,
                "only": _ids(only),
            },
        )
        return tuple(_reset_run(row) for row in rows)

    def forget_worker(self, worker_id: str) -> None:
        """Delete its registration, unless it holds a run."""
        self._run("deregister_worker", {"worker_id": worker_id})

    def held_runs(self, worker_id: str) -> tuple[Token, ...]:
        """The (`id`, `claim`) of every run that a worker holds."""
        return tuple((row.id, row.claims) for row in self._run("held_runs", {"worker_id": worker_id}))

    def is_free(self, run_id: int, claim: int) -> bool:
        """Whether this claim still holds the run, and nobody has locked its row."""
        rows = self._run("changeable_runs", {"tokens": json.dumps([{"id": run_id, "claim": claim}])})
        return any(row.is_free for row in rows)

    def fail_lost_run(self, run_id: int, claim: int, reason: str | None) -> tuple[ResetRun, ...]:
        """End a run that has lost its holder, with the smallest possible write. `reason` None: its errors stay."""
        error = None if reason is None else _error(FailureKind.REFUSED, reason)
        rows = self._run("fail_lost_run", {"run_id": run_id, "claim": claim, "error": error})
        return tuple(_reset_run(row) for row in rows)

    def hand_back_waiting(
        self, worker_id: str, run_id: int, claim: int, *, only: Collection[int] | None = None
    ) -> tuple[ResetRun, ...]:
        """If a worker still executes this run, put back those that it claimed with it and has not started."""
        parameters = {"worker_id": worker_id, "run_id": run_id, "claim": claim, "only": _ids(only)}
        return tuple(_reset_run(row) for row in self._run("hand_back_waiting", parameters))

    def expired_runs(self) -> Iterator[Token]:
        """The (`id`, `claim`) of every run that `sweep_expired` would reset, read page by page."""
        after_id = 0
        while True:
            rows = self._run("expired_runs", {"after_id": after_id, "max_runs": SWEEP_BATCH})
            for row in rows:
                yield row.id, row.claims
            if len(rows) < SWEEP_BATCH:
                return
            after_id = rows[-1].id

    def sweep_expired(self, *, only: Collection[int] | None = None) -> tuple[ResetRun, ...]:
        """Put back, or fail, runs whose lease has ended, on any host; at most 500 a call.

        `only`: these runs alone. It also deletes the registrations of workers that are gone and did not
        deregister.
        """
        rows = self._run(
            "sweep_expired",
            {
                "max_attempts_ceiling": self._max_attempts_ceiling,
                "error": _error(FailureKind.LEASE_EXPIRED, "the worker's lease ended before the task did"),
                "max_runs": SWEEP_BATCH,
                "only": _ids(only),
            },
        )
        return tuple(_reset_run(row) for row in rows)

    def forget_waiters(self) -> int:
        """Delete waiters that left without removing themselves. Returns how many, at most 1,000 a call."""
        forgotten: int = self._run("forget_waiters", {"max_waiters": WAITERS_BATCH})[0].forgotten
        return forgotten

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

    def leave_copy(self) -> None:
        """If the database has become a copy of another one: delete all registrations, and raise ConnectionLost."""
        if self._run("leave_copy", {})[0].is_copy:
            raise ConnectionLost("the database has become a copy of another one")

    def queues_are_drained(self) -> bool:
        drained: bool = self._run("queues_are_drained", {"queues": self._queues})[0].drained
        return drained

    def _run(self, name: str, parameters: dict[str, Any]) -> Sequence[Any]:
        self.before_each()
        return self._send(name, parameters)

    def _send(self, name: str, parameters: dict[str, Any]) -> Sequence[Any]:
        return fetch(self._connection, statement(name), parameters)


def _ids(only: Collection[int] | None) -> str | None:
    return None if only is None else json.dumps(sorted(only))


def _error(kind: FailureKind, message: str) -> str:
    return json.dumps({"kind": kind.value, "message": message})


def _reset_run(row: Any) -> ResetRun:
    return ResetRun(id=row.id, status=Status(row.status), queue_name=row.queue_name, charged=row.charged)
