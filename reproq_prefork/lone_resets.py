"""Resetting runs one by one, where the server refuses to reset all of a dead worker, or all that have expired.

One row would keep the others from being run again for ever. A run that is refused again and again is FAILED by its
id; one that cannot be ended either is left as it is, and looked at again by each sweep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from reproq_prefork.executors.output import MAX_MESSAGE_CHARS
from reproq_prefork.log import Log
from reproq_prefork.store.connection import StatementRefused, ValueRefused
from reproq_prefork.store.steward_store import ResetRun, StewardStore
from reproq_prefork.task_run import LostWorker

MAX_REFUSALS = 3  # of one run, before it counts as its own fault
MAX_SUSPECTS = 10_000

Refusal = StatementRefused | ValueRefused
Runs = tuple[ResetRun, ...]


@dataclass(slots=True)
class LoneResets:
    """What a steward knows of runs that could not be reset. Each method gives what it has reset, run by run.

    Each raises as the store does: at once where the refusal that led to it says nothing about a row, else after
    the other runs, as long as one is to be tried again.
    """

    _log: Log
    _refusals: dict[int, int] = field(default_factory=dict)
    _left: set[int] = field(default_factory=set)

    def of_worker(self, store: StewardStore, lost: LostWorker, refusal: Refusal) -> Iterator[Runs]:
        """All that `lost` held; then forget the worker, unless a run of it is left."""
        _raise_if_about_no_row(refusal)
        yield from self._one_by_one(
            store.held_runs(lost.worker_id),
            reset=lambda run_id: store.reset_worker(lost, keep_registration=True, only_run_id=run_id),
            fail=lambda run_id, why: store.fail_run(run_id, holder=lost.worker_id, why=why),
        )
        if self._left.isdisjoint(store.held_runs(lost.worker_id)):
            yield store.reset_worker(lost)

    def sweep(self, store: StewardStore, refusal: Refusal) -> Iterator[Runs]:
        """What has expired, wherever it was."""
        _raise_if_about_no_row(refusal)
        yield from self._one_by_one(
            store.expired_runs(),
            reset=lambda run_id: store.sweep_expired(only_run_id=run_id),
            fail=lambda run_id, why: store.fail_run(run_id, holder=None, why=why),
        )

    def _one_by_one(
        self,
        run_ids: Iterable[int],
        *,
        reset: Callable[[int], Runs],
        fail: Callable[[int, str], Runs],
    ) -> Iterator[Runs]:
        again: Refusal | None = None
        for run_id in run_ids:
            try:
                runs = reset(run_id)
            except (StatementRefused, ValueRefused) as refusal:
                if self._is_its_own_fault(run_id, refusal):
                    yield self._failed(run_id, refusal, fail)
                elif run_id not in self._left:
                    again = refusal
                continue
            self._refusals.pop(run_id, None)
            self._left.discard(run_id)
            yield runs
        if again is not None:
            raise again

    def _is_its_own_fault(self, run_id: int, refusal: Refusal) -> bool:
        if run_id in self._left or (isinstance(refusal, StatementRefused) and not refusal.may_be_about_a_row):
            return False
        if len(self._refusals) >= MAX_SUSPECTS:
            self._refusals.clear()
        self._refusals[run_id] = self._refusals.get(run_id, 0) + 1
        return self._refusals[run_id] >= MAX_REFUSALS

    def _failed(self, run_id: int, refusal: Refusal, fail: Callable[[int, str], Runs]) -> Runs:
        del self._refusals[run_id]
        try:
            return fail(run_id, f"the run cannot be given back: {refusal}"[:MAX_MESSAGE_CHARS])
        except (StatementRefused, ValueRefused) as error:
            self._left.add(run_id)
            self._log.error(
                f"run {run_id} of a lost worker can be neither reset nor ended; it stays RUNNING until it can be",
                reason=str(refusal),
                end_refused=str(error),
            )
            return ()


def _raise_if_about_no_row(refusal: Refusal) -> None:
    if isinstance(refusal, StatementRefused) and not refusal.may_be_about_a_row:
        raise refusal
