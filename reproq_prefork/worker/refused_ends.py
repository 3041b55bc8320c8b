"""Ends that the server refuses to record while it takes others: what is tried when, and what in place of it.

A refusal that repeats for one run is that run's fault. Its worker carries the end along and goes on with other
runs. It tries the end again as it is, less and less often; after a while smaller ones (`smaller_ends`).
Where even the smallest is refused, it tries all of them once a minute for as long as it lives: when the trigger is
dropped, the run ends as it should have ended. A row that somebody has locked is only waited for: its end is never
made smaller.

These are rules over plain values: the ledger sends the statements and reports how they went. Times are in seconds
of the monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from reproq_prefork.errors import ReproqError
from reproq_prefork.model.settlement import Settlement
from reproq_prefork.store.outcomes import ServerShort, ValueRefused
from reproq_prefork.unix.scoreboard import MAX_UNRECORDED
from reproq_prefork.worker.smaller_ends import smaller_ends

FIRST_WAIT_S = 0.25  # after the first refusal; doubled with each one
LONGEST_WAIT_S = 10.0
DOUBLINGS = 10  # past the longest wait; refusals go on for days, and a float would overflow
LOCKED_WAIT_S = 1.0
PATIENCE_S = 5.0  # before a smaller end is tried
PATIENCE_AT_THE_END_S = 1.0  # the same for a worker that is to stop
# A full disk refuses a large result and takes small ones. That is the server's trouble, and may last.
PATIENCE_WITH_THE_SERVER_S = 600.0
REFUSALS_BEFORE = 3  # a deadlock may choose the same victim twice
GIVEN_UP_AGAIN_S = 60.0
SLOW_S = 0.5  # after a try that took longer, a worker does something else first
MAX_CARRIED = MAX_UNRECORDED  # beside other runs; with more, a worker claims nothing


@dataclass(slots=True)
class RefusedEnd:
    """An attempt whose end was refused. `refusals`: of the end as it is, while the server took other changes."""

    settlement: Settlement
    since_s: float
    next_at: float
    reason: str = ""
    value_refused: bool = False
    server_short: bool = False
    refusals: int = 1
    is_python: bool = False
    is_cancelled: bool = False
    is_given_up: bool = False
    tried: int = 0  # how many ends of this round were refused so far
    of: int = 1  # how many there are in this round

    @classmethod
    def first_refused(cls, settlement: Settlement, error: ReproqError, now: float) -> RefusedEnd:
        end = cls(settlement, since_s=now, next_at=now + FIRST_WAIT_S)
        end._note(error)
        if end.value_refused:
            end.next_at, end.tried = now, 1  # the same value would be refused again
        return end

    @property
    def token(self) -> tuple[int, int]:
        return self.settlement.token

    def next_end(self, now: float, *, leaving: bool) -> Settlement:
        """What to try now. `leaving`: the worker is to stop."""
        ends = [self.settlement]
        if self._may_be_smaller(now, leaving=leaving):
            ends += smaller_ends(
                self.settlement,
                self.reason,
                value_refused=self.value_refused,
                is_python=self.is_python,
                is_cancelled=self.is_cancelled,
            )
        self.of = len(ends)
        return ends[min(self.tried, self.of - 1)]

    def was_refused(self, error: ReproqError, now: float, *, took_s: float) -> bool:
        """`next_end` was refused, while the server took other changes. Whether to try the one after it at once."""
        if self.tried == 0:
            self.refusals += 1
            self._note(error)
        self.tried += 1
        if self.tried < self.of:
            self.next_at = now + took_s
            return took_s < SLOW_S
        self.is_given_up = self.is_given_up or self.of > 1
        self.tried = 0
        self.next_at = now + max(took_s, self._wait_s(now))
        return False

    def put_off(self, now: float) -> None:
        """It says nothing that this was refused: somebody has locked the row, or the server takes nothing."""
        self.next_at = now + LOCKED_WAIT_S

    def _note(self, error: ReproqError) -> None:
        self.reason = str(error)
        self.value_refused = isinstance(error, ValueRefused)
        self.server_short = isinstance(error, ServerShort)

    def _patience_s(self, *, leaving: bool) -> float:
        if self.server_short:
            return PATIENCE_WITH_THE_SERVER_S
        return PATIENCE_AT_THE_END_S if leaving else PATIENCE_S

    def _may_be_smaller(self, now: float, *, leaving: bool) -> bool:
        if self.value_refused or self.is_cancelled or self.is_given_up or self.tried:
            return True
        return self.refusals >= REFUSALS_BEFORE and now >= self.since_s + self._patience_s(leaving=leaving)

    def _wait_s(self, now: float) -> float:
        if self.is_given_up:
            return GIVEN_UP_AGAIN_S
        wait_s = min(FIRST_WAIT_S * 2.0 ** min(self.refusals - 1, DOUBLINGS), LONGEST_WAIT_S)
        patient_until = self.since_s + self._patience_s(leaving=False)
        return min(wait_s, patient_until - now) if now < patient_until else wait_s


class RefusedEnds:
    """All that one worker carries along."""

    def __init__(self) -> None:
        self._ends: dict[tuple[int, int], RefusedEnd] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[RefusedEnd]:
        return iter(tuple(self._ends.values()))

    def get(self, token: tuple[int, int] | None) -> RefusedEnd | None:
        return None if token is None else self._ends.get(token)

    @property
    def tokens(self) -> tuple[tuple[int, int], ...]:
        return tuple(self._ends)

    @property
    def next_at(self) -> float:
        """When one of them is to be tried again; infinity where there are none."""
        return min((end.next_at for end in self._ends.values()), default=math.inf)

    @property
    def are_too_many(self) -> bool:
        """More than a worker carries along beside other runs."""
        return len(self) > MAX_CARRIED

    @property
    def are_hopeless(self) -> bool:
        """As many as a worker carries along are given up."""
        return sum(end.is_given_up for end in self) >= MAX_CARRIED

    @property
    def are_given_up(self) -> bool:
        """Of each the server has refused even the smallest end."""
        return all(end.is_given_up for end in self)

    @property
    def await_the_server(self) -> bool:
        """One at least is refused for what the server lacks."""
        return any(end.server_short for end in self)

    def due(self, now: float) -> list[RefusedEnd]:
        return [end for end in self if end.next_at <= now]

    def add(self, end: RefusedEnd) -> None:
        self._ends[end.token] = end

    def drop(self, token: tuple[int, int]) -> None:
        del self._ends[token]

    def hasten(self) -> None:
        """Try all of them now."""
        for end in self._ends.values():
            end.next_at = 0.0
