"""What the lease machine draws: new runs, how attempts end, and what workers do in turn."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st

from reproq_prefork.model.outcome import (
    Cancelled,
    Failure,
    FailureKind,
    Interrupted,
    Outcome,
    Snoozed,
    Success,
)
from reproq_prefork.spec import Spec

LATER_S = 3600.0
SPECS = tuple(Spec.of({"spec": number}) for number in range(3))
QUEUES = ("a", "b")

which = st.integers(0, 99)  # one of those that there are
new_runs: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    spec=st.sampled_from(SPECS),
    queue=st.sampled_from(QUEUES),
    priority=st.sampled_from([0, 0, 0, 1, -1]),
    minutes=st.sampled_from([None, None, -1, -2, 24 * 60]),
    max_attempts=st.sampled_from([3, 3, 2, 1]),
    unique_key=st.sampled_from([None, None, "k", "l"]),
    atomic=st.sampled_from([False, False, False, False, True]),
)
outcomes = st.sampled_from(
    [
        Success('{"n": 1}'),
        Failure(FailureKind.FAILED, "no", retry_after_s=0.0),
        Failure(FailureKind.TIMEOUT, "late", retry_after_s=LATER_S),
        Failure(FailureKind.UNREADABLE, "never", retry=False),
        Interrupted("a shutdown"),
        Cancelled("the task was cancelled"),
        Snoozed(0.0),
        Snoozed(LATER_S),
        None,  # not started: handed back
    ]
)


class Turn(NamedTuple):
    """Of a worker: how the first runs it holds have ended, and how many it asks for."""

    which: int
    outcomes: Sequence[Outcome | None]
    max_runs: int
    goes_on: bool  # behind the last one that it took
    queues: tuple[str, ...]  # of a worker that is forked for it


turns = st.builds(
    Turn,
    which,
    st.lists(outcomes, max_size=3),
    st.sampled_from([1, 4, 2, 0]),
    st.booleans(),
    st.sampled_from([QUEUES, ("b", "a"), ("b",)]),
)
several_turns = st.lists(turns, min_size=1, max_size=4)


def options_of(new: dict[str, Any], made_at: datetime) -> dict[str, Any]:
    """What `enqueue` takes; `made_at` is a moment that is past."""
    minutes = new["minutes"]
    return {
        "queue_name": new["queue"],
        "priority": new["priority"],
        "run_after": None if minutes is None else made_at + timedelta(minutes=minutes),
        "max_attempts": new["max_attempts"],
        "unique_key": new["unique_key"],
        "atomic": new["atomic"],
    }
