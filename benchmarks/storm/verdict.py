"""What the lines of the task bodies and of the nemesis say. Pure."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL for one process, by CLOCK_BOOTTIME."""

    pid: int
    at: float
    master: bool


@dataclass(frozen=True, slots=True)
class Execution:
    number: int
    pid: int
    parent: int
    started_at: float
    ended_at: float | None  # None: it was broken off


@dataclass(frozen=True, slots=True)
class Verdict:
    enqueued: int
    kills: int
    kills_of_masters: int
    never_finished: int  # no execution of it has come to its end
    executed_again: int  # more than once
    again_though_finished: int  # of these, after an execution that had come to its end
    side_by_side: int  # two executions of one task at the same time
    broken_off: int  # executions that a kill has ended, and ...
    recoveries_s: tuple[float, ...]  # ... how long until the task was started again, where it was


def executions(lines: Iterable[str]) -> list[Execution]:
    """Of `moment number pid parent at` each, in any order."""
    ends: dict[tuple[int, int], list[float]] = defaultdict(list)
    starts = []
    for line in lines:
        moment, number, pid, parent, at = line.split()
        if moment == "end":
            ends[int(number), int(pid)].append(float(at))
        else:
            starts.append((int(number), int(pid), int(parent), float(at)))
    return [
        Execution(number, pid, parent, at, min((end for end in ends[number, pid] if end >= at), default=None))
        for number, pid, parent, at in sorted(starts, key=lambda start: start[3])
    ]


def verdict(enqueued: int, found: Sequence[Execution], kills: Sequence[Kill]) -> Verdict:
    by_number: Mapping[int, list[Execution]] = defaultdict(list)
    for each in found:
        by_number[each.number].append(each)
    of_task = [by_number[number] for number in range(enqueued)]
    broken_off = [each for each in found if each.ended_at is None and _killed_at(each, kills) is not None]
    return Verdict(
        enqueued=enqueued,
        kills=len(kills),
        kills_of_masters=sum(kill.master for kill in kills),
        never_finished=sum(all(each.ended_at is None for each in task) for task in of_task),
        executed_again=sum(len(task) > 1 for task in of_task),
        again_though_finished=sum(
            any(earlier.ended_at is not None for earlier, _ in pairwise(task)) for task in of_task
        ),
        side_by_side=sum(any(_overlap(*two) for two in combinations(task, 2)) for task in of_task),
        broken_off=len(broken_off),
        recoveries_s=tuple(
            later.started_at - (_killed_at(earlier, kills) or 0.0)
            for task in of_task
            for earlier, later in pairwise(task)
            if earlier in broken_off
        ),
    )


def _killed_at(execution: Execution, kills: Sequence[Kill]) -> float | None:
    """When its process, or the one that had started it, was killed."""
    return next(
        (
            kill.at
            for kill in kills
            if kill.pid in (execution.pid, execution.parent) and kill.at >= execution.started_at
        ),
        None,
    )


def _overlap(earlier: Execution, later: Execution) -> bool:
    return earlier.ended_at is not None and earlier.started_at <= later.started_at < earlier.ended_at


def spread(seconds: Sequence[float]) -> str:
    """Median, 99th percentile and greatest."""
    if not seconds:
        return "–"
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"{statistics.median(ordered):.2f} / {p99:.2f} / {ordered[-1]:.2f}"
