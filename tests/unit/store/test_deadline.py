"""How long the answer to a statement is waited for, with a server that is made up."""

from __future__ import annotations

from collections.abc import Generator
from types import SimpleNamespace

import psycopg
import pytest

from reproq_prefork.store import deadline
from reproq_prefork.store.deadline import LATE_READS, _with_deadline

WAIT_R = 1
READY, NOT_READY = 1, 0


def answer_after(reads: int) -> Generator[int, int, str]:
    """As psycopg's own: it waits for so many readable moments."""
    for _ in range(reads):
        while not (yield WAIT_R):
            pass
    return "the answer"


def outcome(gen: Generator[int, int, str], ready: list[int]) -> str | None:
    """What comes of it when these moments pass; None: it still waits."""
    try:
        next(gen)
        for moment in ready:
            gen.send(moment)
    except StopIteration as ended:
        return str(ended.value)
    return None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Its one entry is the time that `deadline` sees."""
    now = [1000.0]
    monkeypatch.setattr(deadline, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_an_answer_within_its_time_is_given(clock: list[float]) -> None:
    assert outcome(_with_deadline(answer_after(5), 8.0), [READY, NOT_READY, READY, READY, READY, READY]) == (
        "the answer"
    )


def test_after_the_deadline_the_wait_ends_with_an_error(clock: list[float]) -> None:
    gen = _with_deadline(answer_after(2), 8.0)
    assert outcome(gen, [READY]) is None
    clock[0] += 9
    with pytest.raises(psycopg.OperationalError, match="no answer from the server within 8 s"):
        gen.send(NOT_READY)


def test_an_answer_that_arrived_while_the_process_was_stopped_still_counts(clock: list[float]) -> None:
    gen = _with_deadline(answer_after(3), 8.0)
    next(gen)
    clock[0] += 60
    for _ in range(2):
        gen.send(READY)
    with pytest.raises(StopIteration):
        gen.send(READY)


def test_messages_without_end_do_not_extend_the_deadline(clock: list[float]) -> None:
    """For example notifications that other sessions send faster than they are read."""
    gen = _with_deadline(answer_after(10**9), 8.0)
    next(gen)
    for _ in range(5 * LATE_READS):
        gen.send(READY)
    clock[0] += 9
    for _ in range(LATE_READS):
        gen.send(READY)
    with pytest.raises(psycopg.OperationalError, match="no answer from the server within 8 s"):
        gen.send(READY)
