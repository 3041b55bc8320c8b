"""Resets the runs of dead workers: those that the master reports, and those whose master is dead too."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from reproq_prefork.errors import ReproqError
from reproq_prefork.model.run import LostWorker
from reproq_prefork.steward.one_by_one import OneByOne
from reproq_prefork.store.connection import UNSEEN_S
from reproq_prefork.store.steward_store import ResetRun, StewardStore

RESETS_S = 1.0  # for dead workers one after the other, before other duties get their turn
RESET_AGAIN_S = 1.0  # if a dead worker's server process was not seen gone, or one of its runs was refused
RESET_AGAIN_AT_LEAST_EACH_S = 4.0


@dataclass(slots=True)
class _ResetAgain:
    """A dead worker whose reset is repeated, until `ends_at` at the latest."""

    lost: LostWorker
    at: float  # monotonic seconds
    ends_at: float
    wait_s: float = RESET_AGAIN_S


class ResetLost:
    """No duty with a period: it is due as soon as a worker is dead, and again as long as a late claim may come."""

    def __init__(
        self,
        *,
        lease_s: float,
        one_by_one: OneByOne,
        on_reset: Callable[[tuple[ResetRun, ...], LostWorker], None],
        answer: Callable[[LostWorker], None],
    ) -> None:
        """`answer` is called once for each worker that was noted, after its reset."""
        self._lease_s = lease_s
        self._one_by_one = one_by_one
        self._on_reset = on_reset
        self._answer = answer
        self._lost: list[LostWorker] = []
        self._goes_on_at = math.inf  # when to continue with them
        self._again: dict[str, _ResetAgain] = {}  # by the worker's id

    @property
    def waiting(self) -> bool:
        """Some dead workers were not reset yet."""
        return bool(self._lost)

    @property
    def due_at(self) -> float:
        return min(self._goes_on_at, *(again.at for again in self._again.values()), math.inf)

    def note(self, lost: LostWorker) -> None:
        if lost not in self._lost:
            self._lost.append(lost)
            self._goes_on_at = 0.0

    def run(self, store: StewardStore, within_s: float = RESETS_S) -> None:
        gives_way_at = time.monotonic() + within_s
        self._goes_on_at = math.inf
        while self._lost:
            if time.monotonic() > gives_way_at:
                self._goes_on_at = 0.0
                break
            lost = self._lost.pop(0)
            try:
                self._reset(store, lost)
            except ReproqError:
                self._lost.append(lost)  # behind the others, so that they come first
                raise
            # Answer even if one of its runs was refused: the steward handles that run alone.
            self._answer(lost)
        for again in [entry for entry in self._again.values() if entry.at <= time.monotonic()]:
            self._reset_again(store, again)

    def _reset(self, store: StewardStore, lost: LostWorker) -> None:
        if lost.worker_id in self._again:
            return  # its reset is already being repeated
        # Until its server process is gone, the last claim that the worker sent may still be committed.
        seen_gone = not store.backend.pooled and store.end_backend_of(lost.worker_id)
        if not self._reset_once(store, lost, seen_gone=seen_gone):
            now = time.monotonic()
            ends_at = now + max(self._lease_s, UNSEEN_S)
            self._again[lost.worker_id] = _ResetAgain(lost, now + RESET_AGAIN_S, ends_at)

    def _reset_once(self, store: StewardStore, lost: LostWorker, *, seen_gone: bool) -> bool:
        """Reset its runs. Returns whether none is left and no late claim can add one."""
        # The registration names the server process, so it stays until that is seen gone.
        keep = not seen_gone and not store.backend.pooled
        done = self._one_by_one.do(
            store,
            lambda only: store.reset_worker(lost, only=only, keep_registration=keep or only is not None),
            lambda: store.held_runs(lost.worker_id),
            may_fail=True,
        )
        self._on_reset(done.runs, lost)
        if done.is_apart and not keep:
            store.forget_worker(lost.worker_id)
        return seen_gone and done.is_all

    def _reset_again(self, store: StewardStore, again: _ResetAgain) -> None:
        now = time.monotonic()
        is_last = now >= again.ends_at  # after that, the sweep resets what is left
        seen_gone = not store.backend.pooled and store.end_backend_of(again.lost.worker_id, within_s=0.0)
        is_done = self._reset_once(store, again.lost, seen_gone=seen_gone or is_last)
        if is_done or is_last:
            del self._again[again.lost.worker_id]
        else:
            again.at = now + again.wait_s
            again.wait_s = min(2 * again.wait_s, RESET_AGAIN_AT_LEAST_EACH_S)
