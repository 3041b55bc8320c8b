"""What an executor asks during a task, answered by a test."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from reproq_prefork.executors.contract import Stop

LONGEST_S = 20.0


class FakeWatch:
    """Says what a test wants, once `when` holds; and counts how often it was asked."""

    def __init__(
        self,
        stop: Stop | None = None,
        when: Callable[[], bool] = lambda: True,
        *,
        deadline_unix_s: float | None = None,
        look_s: float = 0.01,
    ) -> None:
        self._stop = stop
        self._when = when
        self._look_s = look_s
        self._gives_up_at = time.monotonic() + LONGEST_S
        self.deadline_unix_s = deadline_unix_s
        self.fds: Sequence[int] = ()
        self.looks = self.tended = 0
        self.asked_at: list[float] = []

    def wait_s(self) -> float:
        return self._look_s

    def tend(self) -> None:
        self.tended += 1

    def look(self) -> Stop | None:
        assert self.tended > self.looks, "what is due is done before each look"
        self.looks += 1
        self.asked_at.append(time.monotonic())
        assert time.monotonic() < self._gives_up_at, "the task does not end"
        return self._stop if self._stop is not None and self._when() else None
