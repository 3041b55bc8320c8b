"""What a worker asks of the database: register, record and claim, and find out the truth after a lost reply."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from reproq_prefork.model.identity import WorkerIdentity
from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import ClaimedRun, Place, Token, UnreadableRun
from reproq_prefork.model.settlement import Settlement
from reproq_prefork.store.claimed_runs import CLAIMED_FIELDS, claimed_runs
from reproq_prefork.store.connection import BACKEND_GONE_TIMEOUT_S, end_backend_of
from reproq_prefork.store.copies import connect_unless_copy
from reproq_prefork.store.deadline import ServerProcess
from reproq_prefork.store.fetching import fetch, fetch_tuples
from reproq_prefork.store.opening import GoesOn, always
from reproq_prefork.store.sender import Fetch
from reproq_prefork.store.statements import statement

HASTE_S = 1.0
ANNOUNCE_AGAIN_S = 60.0  # the time to announce an end, before another worker may take it

_RUN_ID = attrgetter("run_id")


@dataclass(frozen=True, slots=True)
class Claim:
    """The result of `finish_and_claim`.

    `settled`: how many of the runs to record this worker still held. `found`: how many due runs it met; if this is
    at least the number asked for, there may be more. `unreadable`: runs that were claimed with `runs` and cannot
    be executed.
    """

    settled: int
    holds_lease: bool
    runs: Sequence[ClaimedRun] = ()
    found: int = 0
    unreadable: Sequence[UnreadableRun] = ()


@dataclass(frozen=True, slots=True)
class ClaimedAlone:
    """The result of `claim_run`. `run`: without its payload and all other text; None: the run was not free."""

    holds_lease: bool
    run: ClaimedRun | None


@dataclass(frozen=True, slots=True)
class ChangeableRun:
    """A run that a worker still holds. `is_free`: no other session has locked its row."""

    is_free: bool
    is_python: bool
    is_cancelled: bool


class WorkerStatements:
    """What a worker asks, whoever sends it. Every method is one statement, unless it says otherwise."""

    def __init__(
        self, identity: WorkerIdentity, *, lease_s: float, backend: ServerProcess, run: Fetch, run_hot: Fetch
    ) -> None:
        """`run`: sends the statement of this name and returns its rows, with columns as attributes. `run_hot`: the
        same as tuples, for the statements that are sent for each run."""
        self._identity = identity
        self._lease_s = lease_s
        self._queues = ",".join(identity.queues)
        self._run = run
        self._run_hot = run_hot
        self.backend = backend

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

    def reconnected(self, *, old_is_gone: bool = True) -> bool:
        """Register this connection's server process, unless the previous one may still be there.

        False: the lease has ended, and cannot be renewed.
        """
        parameters = {
            "worker_id": self._identity.id,
            "pooled": self.backend.pooled,
            "old_is_gone": old_is_gone,
        }
        return bool(self._run("reconnect_worker", parameters))

    def deregister(self) -> bool:
        """False: the worker holds a run, or was not registered any more."""
        return bool(self._run("deregister_worker", {"worker_id": self._identity.id}))

    def finish_and_claim(
        self,
        settlements: Sequence[Settlement],
        *,
        max_runs: int,
        places: Mapping[str, Place] = MappingProxyType({}),
    ) -> Claim:
        """Record `settlements`, by id, and claim up to `max_runs` runs, in one statement and one commit.

        `places`: for a queue, the run behind which the search begins in that run's priority; higher priorities are
        searched too. The other queues are searched from their head. A run that must not be executed again without
        need is claimed alone, however many are asked for.
        """
        rows = self._run_hot(
            "finish_and_claim",
            {
                "settlements": f"[{','.join(map(_as_json, sorted(settlements, key=_RUN_ID)))}]",
                "worker_id": self._identity.id,
                "places": _places(self._identity.queues, places),
                "lease_seconds": self._lease_s,
                "max_runs": max_runs,
            },
        )
        first = rows[0]
        settled, _told, holds_lease, found = first[CLAIMED_FIELDS + 1 :]
        if first[0] is None:
            return Claim(settled, holds_lease, found=found)
        runs, unreadable = claimed_runs(rows)
        return Claim(settled, holds_lease, runs, found, unreadable)

    def next_due_run(self, passed: Collection[int]) -> int | None:
        """The id of the next run in the queues, without those in `passed`. None: nothing is due."""
        rows = self._run("next_due_run", {"queues": self._queues, "passed": json.dumps(sorted(passed))})
        return rows[0].id if rows else None

    def claim_run(self, run_id: int) -> ClaimedAlone:
        """Claim only this run, and read only numbers of it."""
        (row,) = self._run(
            "claim_run",
            {"run_id": run_id, "worker_id": self._identity.id, "lease_seconds": self._lease_s},
        )
        if row.id is None:
            return ClaimedAlone(row.holds_lease, None)
        run = ClaimedRun(
            id=row.id,
            claim=row.claims,
            payload=None,
            spec_hash="",
            task_path="" if row.names_task else None,
            queue_name="",
            attempt=row.attempts,
            max_attempts=row.max_attempts,
            timeout_s=None,
        )
        return ClaimedAlone(row.holds_lease, run)

    def read_claimed(self, token: Token) -> ClaimedRun | UnreadableRun | None:
        """The run that was claimed alone. None: this worker has lost it."""
        run_id, claim = token
        rows = self._run_hot("read_claimed", {"run_id": run_id, "claim": claim})
        if not rows:
            return None
        runs, unreadable = claimed_runs(rows)
        return runs[0] if runs else unreadable[0]

    def fail_run(self, run_id: int, why: str) -> None:
        """End a PENDING run that nobody can claim."""
        error = json.dumps({"kind": FailureKind.UNREADABLE.value, "message": why})
        self._run("fail_run", {"run_id": run_id, "error": error})

    def held_runs(self) -> frozenset[Token]:
        """The (`id`, `claim`) of every run that this worker holds, according to the database."""
        rows = self._run("held_runs", {"worker_id": self._identity.id})
        return frozenset((row.id, row.claims) for row in rows)

    def changeable_runs(self, tokens: Collection[Token]) -> Mapping[Token, ChangeableRun]:
        """Of these runs, those that are still held, by (`id`, `claim`), and whether each could be written now."""
        wanted = [{"id": run_id, "claim": claim} for run_id, claim in tokens]
        rows = self._run("changeable_runs", {"tokens": json.dumps(wanted)})
        return {
            (row.id, row.claims): ChangeableRun(row.is_free, row.task_path is not None, row.is_cancelled)
            for row in rows
        }

    def take_finish_due(self) -> int | None:
        """A run of this worker's queues whose end must be announced. It is due again in a minute."""
        rows = self._run("take_finish_due", {"queues": self._queues, "again_seconds": ANNOUNCE_AGAIN_S})
        return rows[0].id if rows else None

    def clear_finish_due(self, run_id: int) -> None:
        """The end of this run has been announced to the application."""
        self._run("clear_finish_due", {"run_id": run_id})


class WorkerStore(WorkerStatements):
    """The statements of a worker, on a connection of its own.

    Raises `ConnectionLost` (the outcome is unknown), `StatementRefused` and `ValueRefused` (nothing was written).
    """

    def __init__(
        self,
        database_url: str,
        identity: WorkerIdentity,
        *,
        lease_s: float,
        system: int | None = None,
        goes_on: GoesOn = always,
    ) -> None:
        """Connect; `system` and `goes_on` as in `connect`. Raises `DatabaseUnavailable`, also for a copy."""
        self._connection = connection = connect_unless_copy(
            database_url,
            application_name=f"reproq-prefork {identity.id}",
            system=system,
            goes_on=goes_on,
        )
        super().__init__(
            identity,
            lease_s=lease_s,
            backend=connection.backend,
            run=lambda name, parameters: fetch(connection, statement(name), parameters),
            run_hot=lambda name, parameters: fetch_tuples(connection, name, parameters),
        )

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def in_haste(self) -> Iterator[None]:
        """Inside, a statement has one second. After that, the connection counts as lost."""
        deadline_s, self._connection.deadline_s = self._connection.deadline_s, HASTE_S
        try:
            yield
        finally:
            self._connection.deadline_s = deadline_s

    def end_previous_backend(self, *, within_s: float = BACKEND_GONE_TIMEOUT_S) -> bool:
        """End the server process registered before a reconnect, and see it gone. As `end_backend_of`."""
        return end_backend_of(self._connection, self._identity.id, within_s=within_s)


def _as_json(settlement: Settlement) -> str:
    """One element of the JSON array `settlements`. The result is already JSON text, and is copied unchanged."""
    run_id, claim, status, result, error, delay_s, refunded, last_attempt, finish_due = settlement
    text = f'{{"id":{run_id},"claim":{claim},"status":"{status}"'
    if result is not None:
        text += f',"result":{result}'
    if error is not None:
        text += f',"error":{json.dumps(error)}'
    if delay_s is not None:
        text += f',"delay_seconds":{delay_s!r}'
    if last_attempt is not None:
        text += f',"last_attempt":{last_attempt}'
    if refunded:
        text += ',"refunded":true'
    return text + (',"finish_due":true}' if finish_due else "}")


def _places(queues: Sequence[str], places: Mapping[str, Place]) -> str:
    parts: list[dict[str, Any]] = []
    for queue in queues:
        place = places.get(queue)
        if place is None:
            parts.append({"queue_name": queue})
        else:
            parts.append({"queue_name": queue, "above": place.priority})
            parts.append({"queue_name": queue, **place._asdict()})
    return json.dumps(parts)
