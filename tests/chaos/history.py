"""What a storm has left behind: four logs that know nothing of each other, and the table at the end.

All times are seconds of CLOCK_BOOTTIME on the one machine where everything runs.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field


class Answer(enum.Enum):
    """What a producer was told about a run that it enqueued."""

    OK = "committed"
    FAILED = "refused"
    UNKNOWN = "the connection broke before the answer came"


@dataclass(frozen=True, slots=True)
class Told:
    """A producer's line. `number` is in the payload, and no other run has it."""

    number: int
    answer: Answer
    at: float


class Moment(enum.Enum):
    START = "start"
    BEAT = "beat"  # the body still runs
    END = "end"  # the body is done
    FAIL = "fail"  # it is about to fail, as it was asked to


@dataclass(frozen=True, slots=True)
class Page:
    """A task body's line, written by one append. `parent` is whoever has started its process."""

    moment: Moment
    run_id: int
    claim: int
    pid: int
    at: float
    parent: int = 0
    host: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """A change of status, as a trigger has seen it."""

    run_id: int
    old: str
    new: str
    claim: int
    at: float


@dataclass(frozen=True, slots=True)
class Row:
    """A run at the end."""

    run_id: int
    number: int
    status: str
    attempts: int
    max_attempts: int
    claims: int
    error_kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """What the nemesis did. `until`: when it took it back, or saw it done; a kill is over at once."""

    kind: str
    at: float
    until: float
    recovery_s: float  # within so many seconds of `recovers_from` what it hit is PENDING again, or ended
    host: str | None = None  # whom it hit; None: everybody
    pids: frozenset[int] = frozenset()  # which processes of the host; none named: all of them
    reruns: bool = True  # whether a run may be run again for it; most faults are no reason for that
    counts_from_its_start: bool = False
    pauses: bool = False  # a whole host, or its master, stood still: only then may two executions overlap

    @property
    def recovers_from(self) -> float:
        return self.at if self.counts_from_its_start else self.until


@dataclass(frozen=True, slots=True)
class History:
    told: Sequence[Told]
    pages: Sequence[Page]
    edges: Sequence[Edge]
    rows: Sequence[Row]
    faults: Sequence[Fault]
    healed_at: float
    leftovers: Sequence[str] = field(default=())  # processes, connections, locks, files: a sentence each
