"""Ends that the server refuses to record although it accepts others: what the worker tries, and when.

If the refusals of one run repeat, the run is the cause. Its worker carries the end along and continues with other
runs. It tries the end again unchanged, less and less often; after a while it tries smaller ends (`smaller_ends`).
If the server refuses even the smallest, the worker tries all of them once a minute for as long as it lives. So
when somebody drops the trigger, the run ends as it should have ended. If somebody has locked the row, the worker
only waits, and never makes the end smaller.

This file holds rules over plain values: the ledger sends the statements and reports their results. Times are in
seconds of the monotonic clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from reproq_prefork.errors import ReproqError
from reproq_prefork.model.run import Token
from reproq_prefork.model.settlement import Settlement
from reproq_prefork.store.outcomes import ServerShort, ValueRefused
from reproq_prefork.unix.scoreboard import MAX_UNRECORDED
from reproq_prefork.worker.smaller_ends import smaller_ends

FIRST_WAIT_S = 0.25  # after the first refusal; doubles with each refusal
LONGEST_WAIT_S = 10.0
DOUBLINGS = 10  # already past the longest wait; refusals may go on for days, and a float would overflow
LOCKED_WAIT_S = 1.0
PATIENCE_S = 5.0  # before a smaller end is tried
PATIENCE_AT_THE_END_S = 1.0  # the same for a worker that must stop
# A full disk refuses a large result and accepts small ones. The server is the cause, and that may last.
PATIENCE_WITH_THE_SERVER_S = 600.0
REFUSALS_BEFORE = 3  # a deadlock may choose the same victim twice
GIVEN_UP_AGAIN_S = 60.0
SLOW_S = 0.5  # after a try that took longer, the worker does something else first
MAX_CARRIED = MAX_UNRECORDED  # while it executes other runs; with more, a worker claims nothing


@dataclass(slots=True)
class RefusedEnd:
    """An attempt whose end was refused.

    `refusals` counts refusals of the unchanged end while the server accepted other changes.
    """

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
    of: int = 1  # how many ends this round has

    @classmethod
    def first_refused(cls, settlement: Settlement, error: ReproqError, now: float) -> RefusedEnd:
        end = cls(settlement, since_s=now, next_at=now + FIRST_WAIT_S)
        end._note(error)
        if end.value_refused:
            end.next_at, end.tried = now, 1  # the same value would be refused again
        return end

    @property
    def token(self) -> Token:
        return self.settlement.token

    def next_end(self, now: float, *, leaving: bool) -> Settlement:
        """The end to try now. `leaving`: the worker must stop."""
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
        """Note that `next_end` was refused while the server accepted other changes.

        Returns whether to try the next one at once.
        """
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
        """Wait. This refusal does not count: somebody has locked the row, or the server accepts no changes."""
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
    """All ends that one worker carries along."""

    def __init__(self) -> None:
        self._ends: dict[Token, RefusedEnd] = {}

    def __len__(self) -> int:
        return len(self._ends)

    def __iter__(self) -> Iterator[RefusedEnd]:
        return iter(tuple(self._ends.values()))

    def get(self, token: Token | None) -> RefusedEnd | None:
        return None if token is None else self._ends.get(token)

    @property
    def tokens(self) -> tuple[Token, ...]:
        return tuple(self._ends)

    @property
    def next_at(self) -> float:
        """When to try the next of them again; infinity if there are none."""
        return min((end.next_at for end in self._ends.values()), default=math.inf)

    @property
    def are_too_many(self) -> bool:
        """There are more than a worker may carry along while it executes other runs."""
        return len(self) > MAX_CARRIED

    @property
    def are_hopeless(self) -> bool:
        """A worker may carry `MAX_CARRIED`, and at least that many are given up."""
        return sum(end.is_given_up for end in self) >= MAX_CARRIED

    @property
    def are_given_up(self) -> bool:
        """The server has refused even the smallest end of each."""
        return all(end.is_given_up for end in self)

    @property
    def await_the_server(self) -> bool:
        """At least one is refused because the server lacks a resource, such as disk space."""
        return any(end.server_short for end in self)

    def due(self, now: float) -> list[RefusedEnd]:
        return [end for end in self if end.next_at <= now]

    def add(self, end: RefusedEnd) -> None:
        self._ends[end.token] = end

    def drop(self, token: Token) -> None:
        del self._ends[token]

    def hasten(self) -> None:
        """Try all of them now."""
        for end in self._ends.values():
            end.next_at = 0.0
