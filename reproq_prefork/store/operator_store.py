"""What a person at the command line asks of the database: its state, the results of runs, and to prune."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reproq_prefork.model.run import Status
from reproq_prefork.model.stored_values import read_texts
from reproq_prefork.store.connection import TimeLimits, connect
from reproq_prefork.store.fetching import fetch
from reproq_prefork.store.listed_runs import ListedRun, Wanted, list_runs
from reproq_prefork.store.run_rows import read_status
from reproq_prefork.store.sender import Fetch
from reproq_prefork.store.statements import statement
from reproq_prefork.store.unfinished_runs import Selection, UnfinishedRuns

# A person can wait longer than a worker.
OPERATOR_LIMITS = TimeLimits(statement_s=60.0, lock_s=5.0, client_s=65.0)
MAX_RUNS_COUNTED = 1_000_000
SAMPLED_RUNS = 200_000
MAX_LATER_RUNS = 1_000
MAX_RECENT_RUNS = 10_000
RECENT_S = 3600.0
PRUNE_BATCH = 1_000
COUNT_BATCH = 20_000
MAX_SECONDS_SHOWN = 1e11  # 3,170 years

_BEFORE_ALL_IDS = -(2**63)
_STATUSES = frozenset(status.value for status in Status)


@dataclass(frozen=True, slots=True)
class Count:
    """How many runs. `exact` False: estimated from a sample. `due`: how many of them could start now."""

    runs: int = 0
    due: int = 0
    exact: bool = True


@dataclass(frozen=True, slots=True)
class QueueState:
    name: str
    counts: Mapping[Status, Count]
    oldest_due_s: float | None  # how long the oldest due run has waited

    def count(self, status: Status) -> Count:
        return self.counts.get(status, Count())


@dataclass(frozen=True, slots=True)
class RunAtWork:
    id: int
    queue_name: str
    task_path: str | None
    attempt: int
    running_s: float | None
    cancel_requested: bool = False


@dataclass(frozen=True, slots=True)
class WorkerAtWork:
    """A worker fork and its runs. All fields but `id` and `runs` are None if it is not registered any more."""

    id: str
    host: str | None
    pid: int | None
    version: str | None
    queues: tuple[str, ...] | None
    up_s: float | None
    lease_s: float | None  # until its lease ends; negative: it has ended
    runs: tuple[RunAtWork, ...]


class OperatorReads:
    """The state of the database, read on any connection. `fetch` takes the name of a statement and its parameters,
    and returns its rows, with columns as attributes. Its errors pass through."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    def queues(self) -> tuple[QueueState, ...]:
        """Every queue that has runs, by name. A count that would take long is estimated."""
        counts = self._counts()
        waited = self.waited_s()
        return tuple(
            QueueState(
                name,
                {status: count for (queue, status), count in counts.items() if queue == name},
                waited.get(name),
            )
            for name in sorted({queue for queue, _ in counts} | waited.keys())
        )

    def waited_s(self) -> Mapping[str, float]:
        """How long the oldest due run has waited, for each queue that has one."""
        return {row.queue_name: _seconds(row.waited_seconds) or 0.0 for row in self._run("oldest_due_runs")}

    def _counts(self) -> dict[tuple[str, Status], Count]:
        estimated = self.estimated_runs()
        if estimated <= MAX_RUNS_COUNTED:
            return _by_queue(self._run("count_runs"))
        live = _by_queue(self._run("count_live_runs", max_pending=MAX_RUNS_COUNTED + 1))
        pending = sum(count.runs for (_, status), count in live.items() if status is Status.PENDING)
        counted = {Status.RUNNING} if pending > MAX_RUNS_COUNTED else {Status.RUNNING, Status.PENDING}
        percent = min(100.0, 100 * SAMPLED_RUNS / estimated)
        sampled = _by_queue(self._run("sample_runs", percent=percent), factor=100 / percent)
        return {
            **{key: count for key, count in sampled.items() if key[1] not in counted},
            **{key: count for key, count in live.items() if key[1] in counted},
        }

    def workers(self) -> tuple[WorkerAtWork, ...]:
        """Every registered worker, and every worker that still holds a run, by host."""
        rows_of: dict[str, list[Any]] = {}
        for row in self._run("workers_at_work"):
            rows_of.setdefault(row.worker_id, []).append(row)
        return tuple(_worker_state(worker_id, rows) for worker_id, rows in rows_of.items())

    def replays_of(self, run_id: int, spec_hash: str) -> tuple[tuple[int, Status], ...]:
        """The replays of this run. Only the first thousand later runs of its spec are searched."""
        rows = self._run("replays_of_run", run_id=run_id, spec_hash=spec_hash, max_runs=MAX_LATER_RUNS)
        return tuple((row.id, read_status(row.id, row.status)) for row in rows)

    def recent_failures(self) -> Mapping[str, int]:
        """Of the newest 10,000 runs of all queues: how many failed within the last hour, by queue."""
        rows = self._run("recent_failures", max_runs=MAX_RECENT_RUNS, seconds=RECENT_S)
        return {row.queue_name: row.runs for row in rows}

    def list_runs(self, wanted: Wanted, limit: int) -> list[ListedRun]:
        """The newest runs that match, the newest first."""
        return list_runs(self._fetch, wanted, limit)

    def estimated_runs(self) -> int:
        """About how many runs there are, estimated from the size of the table."""
        return round(float(self._run("estimated_runs")[0].runs))

    def _run(self, name: str, **parameters: Any) -> Sequence[Any]:
        return self._fetch(name, parameters)


class OperatorStore(OperatorReads):
    """One connection. Raises as `WorkerStore` does."""

    def __init__(self, database_url: str, *, for_writing: bool = True) -> None:
        """Connect; `for_writing` False: a standby will do. Raises `DatabaseUnavailable`."""
        self.connection = connect(
            database_url,
            application_name="reproq-prefork command",
            limits=OPERATOR_LIMITS,
            for_writing=for_writing,
        )
        super().__init__(lambda name, parameters: fetch(self.connection, statement(name), parameters))

    def close(self) -> None:
        self.connection.close()

    def unfinished(self, selection: Selection) -> UnfinishedRuns:
        """The unfinished runs that match."""
        return UnfinishedRuns(self._fetch, selection)

    def forget_finish_due(self) -> None:
        """Announce to the application none of the ends that are still due to be announced."""
        self._run("forget_finish_due")

    def adopt(self) -> None:
        """Accept a copy of another database as a database of its own. Its runs may then be executed here."""
        self._run("adopt_database")

    def prune(self, *, older_than_s: float, failed_older_than_s: float) -> Iterator[int]:
        """Delete runs that finished so long ago, batch by batch. Yields how many each batch deleted.

        `failed_older_than_s` is the age for FAILED and CANCELLED runs. Each batch is committed alone, so an
        interruption loses nothing that is done.
        """
        return self._old_runs("prune_batch", PRUNE_BATCH, older_than_s, failed_older_than_s)

    def count_prunable(self, *, older_than_s: float, failed_older_than_s: float) -> Iterator[int]:
        """Count what `prune` would delete, batch by batch. Changes nothing."""
        return self._old_runs("count_old_batch", COUNT_BATCH, older_than_s, failed_older_than_s)

    def _old_runs(
        self, name: str, max_runs: int, older_than_s: float, failed_older_than_s: float
    ) -> Iterator[int]:
        after_id = _BEFORE_ALL_IDS
        while True:
            (batch,) = self._run(
                name,
                after_id=after_id,
                max_runs=max_runs,
                older_than_seconds=older_than_s,
                failed_older_than_seconds=failed_older_than_s,
            )
            yield batch.runs
            if batch.is_last:
                return
            after_id = batch.last_id


def _by_queue(rows: Sequence[Any], factor: float | None = None) -> dict[tuple[str, Status], Count]:
    return {
        (row.queue_name, Status(row.status)): Count(
            round(row.runs * (factor or 1)), round(row.due * (factor or 1)), exact=factor is None
        )
        for row in rows
        if row.status in _STATUSES  # skip a status that only another release knows
    }


def _seconds(seconds: float | None) -> float | None:
    """Seconds to or from a time of a row, which may be infinitely far away."""
    return None if seconds is None else max(-MAX_SECONDS_SHOWN, min(seconds, MAX_SECONDS_SHOWN))


def _worker_state(worker_id: str, rows: Sequence[Any]) -> WorkerAtWork:
    first = rows[0]
    return WorkerAtWork(
        id=worker_id,
        host=first.host,
        pid=first.pid,
        version=first.version,
        queues=read_texts(first.queues),
        up_s=_seconds(first.up_seconds),
        lease_s=_seconds(first.lease_seconds),
        runs=tuple(
            RunAtWork(
                row.run_id,
                row.queue_name,
                row.task_path,
                row.attempts,
                _seconds(row.running_seconds),
                row.cancel_requested,
            )
            for row in rows
            if row.run_id is not None
        ),
    )
