"""What the store must do, as plain Python: written from the design, and not from the SQL.

The server's clock is the only one, so where it decides, the model holds a `Moment`: what is read afterwards must
lie between the clock before the step and after it, and is then taken over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

PENDING, RUNNING, SUCCESSFUL, FAILED, CANCELLED = "PENDING", "RUNNING", "SUCCESSFUL", "FAILED", "CANCELLED"
LIVE = (PENDING, RUNNING)

# The picture of the design, drawn once more.
EDGES = {
    PENDING: (RUNNING, CANCELLED),
    RUNNING: (PENDING, SUCCESSFUL, FAILED, CANCELLED),
    SUCCESSFUL: (),
    FAILED: (),
    CANCELLED: (),
}

Token = tuple[int, int]
Edge = tuple[int, str, str]


@dataclass(frozen=True)
class Moment:
    """The server's now() in this step, and this much later."""

    later_s: float = 0.0

    def check(self, found: datetime, before: datetime, after: datetime) -> None:
        delay = timedelta(seconds=self.later_s)
        assert before + delay <= found <= after + delay, (found, self)


@dataclass
class Run:
    id: int
    queue_name: str
    spec: str
    priority: int
    max_attempts: int
    run_after: datetime | Moment | None
    unique_key: str | None
    atomic: bool
    replay_of: int | None = None
    enqueued_at: datetime | Moment = Moment()
    status: str = PENDING
    attempts: int = 0
    claims: int = 0
    holder: str | None = None
    own_lease_is_past: bool = False
    worker_ids: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # their kinds
    result: object = None
    cancel_requested: bool = False
    has_started: bool = False
    batch: int = 0  # which claim has taken it

    @property
    def due(self) -> datetime:
        due = self.enqueued_at if self.run_after is None else self.run_after
        assert isinstance(due, datetime)
        return due

    @property
    def order(self) -> tuple[int, datetime, int]:
        """Of the claim: higher priority first, then the due time, then the id."""
        return -self.priority, self.due, self.id

    @property
    def goes_alone(self) -> bool:
        return self.max_attempts == 1 or self.attempts > 0 or self.atomic

    @property
    def token(self) -> Token:
        return self.id, self.claims


@dataclass
class Worker:
    lease: str = "held"  # or "past", or "long past"


@dataclass(frozen=True)
class End:
    """What a holder says has become of its attempt."""

    status: str
    result: object = None
    error: str | None = None
    delay_s: float | None = None
    refunded: bool = False


@dataclass
class Model:
    """`ceiling`: the host's `--max-attempts`. `edges`: every change of a status, in the order of the steps."""

    ceiling: int | None = None
    runs: dict[int, Run] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    batches: int = 0
    _queues: dict[str, tuple[str, ...]] = field(default_factory=dict)

    # --- producers and operators ---

    def holder_of_key(self, key: str | None) -> Run | None:
        holders = [run for run in self.runs.values() if run.unique_key == key and run.status in LIVE]
        assert key is None or len(holders) <= 1
        return None if key is None or not holders else holders[0]

    def add(self, run: Run) -> None:
        assert run.id not in self.runs
        assert run.id > max(self.runs, default=0)
        self.runs[run.id] = run

    def replay(self, original: Run, new_id: int) -> None:
        self.add(
            Run(
                id=new_id,
                queue_name=original.queue_name,
                spec=original.spec,
                priority=original.priority,
                max_attempts=original.max_attempts,
                run_after=None,
                unique_key=original.unique_key,
                atomic=original.atomic,
                replay_of=original.id,
            )
        )

    def newest_of(self, spec: str) -> Run | None:
        return max(
            (run for run in self.runs.values() if run.spec == spec), key=lambda run: run.id, default=None
        )

    def cancel(self, run: Run) -> None:
        if run.status == PENDING:
            run.cancel_requested = True
            self._end(run, CANCELLED, "cancelled")
        elif run.status == RUNNING:
            run.cancel_requested = True

    def prune(self, statuses: Collection[str]) -> int:
        gone = [run.id for run in self.runs.values() if run.status in statuses]
        for run_id in gone:
            del self.runs[run_id]
        return len(gone)

    # --- holders ---

    def held_by(self, worker_id: str) -> list[Run]:
        return [run for run in self.runs.values() if run.status == RUNNING and run.holder == worker_id]

    def holding(self, token: Token) -> Run | None:
        """The run that this token holds now. None: the lease was lost, whoever shows it."""
        run = self.runs.get(token[0])
        return run if run is not None and run.status == RUNNING and run.claims == token[1] else None

    def finish(self, token: Token, end: End) -> bool:
        run = self.holding(token)
        if run is None:
            return False
        run.result = end.result
        if end.refunded:
            self._refund(run)
        if end.delay_s is not None:
            run.run_after = Moment(end.delay_s)
        self._leave(run, end.status, end.error)
        return True

    def claimable(
        self, queues: Iterable[str], now: datetime, behind: Mapping[str, tuple[int, datetime, int]]
    ) -> list[Run]:
        """`behind`: of a queue's runs of this priority, only those behind this place."""

        def is_passed(run: Run) -> bool:
            place = behind.get(run.queue_name)
            return place is not None and run.order[0] == place[0] and run.order <= place

        due = (
            run
            for run in self.runs.values()
            if run.status == PENDING and run.queue_name in queues and run.due <= now and not is_passed(run)
        )
        return sorted(due, key=lambda run: run.order)

    def claim(self, worker_id: str, candidates: Sequence[Run], max_runs: int) -> list[Token]:
        """The first of `candidates`, and those behind it up to one that goes alone."""
        if not self.has_lease(worker_id):
            return []
        taken: list[Run] = []
        for run in candidates[:max_runs]:
            if taken and (taken[0].goes_alone or run.goes_alone):
                break
            taken.append(run)
        self.batches += 1
        for run in taken:
            self._change(run, RUNNING)
            run.attempts += 1
            run.claims += 1
            run.holder, run.own_lease_is_past, run.batch = worker_id, False, self.batches
            run.worker_ids.append(worker_id)
            run.has_started = True
        return [run.token for run in taken]

    def hand_back_waiting(self, worker_id: str, token: Token) -> list[int]:
        """What a worker has claimed together with the run it is at, and not come to."""
        current = self.holding(token)
        if current is None or current.holder != worker_id:
            return []
        waiting = [
            run for run in self.held_by(worker_id) if run.batch == current.batch and run.order > current.order
        ]
        for run in waiting:
            self._refund(run)
            self._leave(run, PENDING)
        return [run.id for run in waiting]

    # --- leases ---

    def add_worker(self, worker_id: str, queues: tuple[str, ...]) -> None:
        self.workers[worker_id] = Worker()
        self._queues[worker_id] = queues

    def queues_of(self, worker_id: str) -> tuple[str, ...]:
        """Also of one that is not registered any more."""
        return self._queues[worker_id]

    def end_lease(self, worker_id: str, lease: str) -> None:
        if worker_id in self.workers:
            self.workers[worker_id].lease = lease

    def has_lease(self, worker_id: str) -> bool:
        worker = self.workers.get(worker_id)
        return worker is not None and worker.lease == "held"

    def leave(self, worker_id: str) -> None:
        if not self.held_by(worker_id):
            self.workers.pop(worker_id, None)

    def reset(
        self,
        worker_id: str,
        *,
        started: Token | None,
        charge_all: bool,
        refund: bool,
        keep: bool,
    ) -> dict[int, bool]:
        """All that a dead worker held; gives whether it was charged for each."""
        charged: dict[int, bool] = {}
        for run in self.held_by(worker_id):
            had_started = charge_all or run.token == started
            charged[run.id] = had_started and (not refund or self._attempts_allowed(run) == 1)
            self._lose(run, "worker_lost" if charged[run.id] else None)
        if not keep:
            self.workers.pop(worker_id, None)
        return charged

    def sweep(self) -> list[int]:
        expired = [
            run
            for run in self.runs.values()
            if run.status == RUNNING and run.own_lease_is_past and not self.has_lease(run.holder or "")
        ]
        forgotten = [
            worker_id
            for worker_id, worker in self.workers.items()
            if worker.lease == "long past" and not self.held_by(worker_id)
        ]
        for run in expired:
            self._lose(run, "lease_expired")
        for worker_id in forgotten:
            del self.workers[worker_id]
        return [run.id for run in expired]

    # --- what all of them come to ---

    def settle_moments(
        self, times_of: Callable[[int], tuple[datetime, datetime | None]], before: datetime, after: datetime
    ) -> None:
        """Take over what the server's clock has decided in this step."""
        for run in self.runs.values():
            enqueued_at, run_after = times_of(run.id)
            if isinstance(run.enqueued_at, Moment):
                run.enqueued_at.check(enqueued_at, before, after)
                run.enqueued_at = enqueued_at
            if isinstance(run.run_after, Moment):
                assert run_after is not None
                run.run_after.check(run_after, before, after)
                run.run_after = run_after

    def _attempts_allowed(self, run: Run) -> int:
        return run.max_attempts if self.ceiling is None else min(run.max_attempts, self.ceiling)

    def _lose(self, run: Run, charged_as: str | None) -> None:
        """Its holder is dead, or its lease is over."""
        if charged_as is None:
            self._refund(run)
            self._leave(run, PENDING)
        elif run.attempts >= self._attempts_allowed(run) and not run.cancel_requested:
            self._leave(run, FAILED, charged_as)
        else:
            self._leave(run, PENDING, charged_as)

    def _refund(self, run: Run) -> None:
        run.attempts -= 1
        run.worker_ids = run.worker_ids[:-1]
        run.has_started = run.attempts > 0

    def _leave(self, run: Run, status: str, error: str | None = None) -> None:
        """A holder lets go. What somebody has cancelled does not go back to PENDING."""
        run.holder = None
        if status == PENDING and run.cancel_requested:
            self._end(run, CANCELLED, error or "cancelled")
        else:
            self._end(run, status, error)

    def _end(self, run: Run, status: str, error: str | None) -> None:
        if error is not None:
            run.errors = [*run.errors, error]
        self._change(run, status)

    def _change(self, run: Run, status: str) -> None:
        assert status in EDGES[run.status], (run, status)
        self.edges.append((run.id, run.status, status))
        run.status = status
