"""What a storm has left behind: logs that know nothing of each other, and the table at the end.

All times are seconds of CLOCK_BOOTTIME on the one machine where everything runs.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field


class Answer(enum.Enum):
    """What a producer was told about a run that it enqueued."""

    OK = "committed"
    HELD = "another run holds its key"
    FAILED = "refused"
    UNKNOWN = "the connection broke before the answer came"


@dataclass(frozen=True, slots=True)
class Told:
    """A producer's line. `number` is in the payload, and no other run has it."""

    number: int
    answer: Answer
    at: float
    is_odd: bool = False


@dataclass(frozen=True, slots=True)
class KeyAnswer:
    """What a producer was told about a run with a unique key: the run that holds it, added by this call or not."""

    number: int
    key: str
    run_id: int
    created: bool
    sent_at: float
    at: float


@dataclass(frozen=True, slots=True)
class Cancel:
    """A cancel. `answer`: the run's status as it was told; UNKNOWN where it never came."""

    run_id: int
    sent_at: float
    at: float
    answer: str


class Moment(enum.Enum):
    START = "start"
    BEAT = "beat"  # the body still runs
    END = "end"  # the body is done
    FAIL = "fail"  # it is about to fail, as it was asked to


@dataclass(frozen=True, slots=True)
class Page:
    """A task body's line, written by one append. `parent` is whoever has started its process.

    Pids are those of the host's own pid namespace.
    """

    moment: Moment
    run_id: int
    claim: int
    pid: int
    at: float
    parent: int = 0
    host: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """A change of status, as a trigger has seen it. `error_kind`: of the entry that came with it, if one did.

    `host`: of whoever has claimed it, where it became RUNNING.
    """

    run_id: int
    old: str
    new: str
    claim: int
    at: float
    error_kind: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True)
class Effect:
    """A row that an atomic task has left in the database, beside its run."""

    run_id: int
    claim: int


@dataclass(frozen=True, slots=True)
class Row:
    """A run at the end, and what it was asked to do."""

    run_id: int
    number: int
    status: str
    attempts: int
    max_attempts: int
    claims: int
    work: str = ""  # which kind of work it is, for the report
    key: str | None = None
    added_at: float | None = None  # of those with a key, when the server took it
    retry_after_s: float | None = None  # how long its attempts that fail ask to wait
    is_atomic: bool = False
    is_odd: bool = False  # no producer that is sane adds such a row
    hoards: bool = False  # it asks for more memory than a task may have
    memory_errors: int = 0  # how many of its attempts ended for want of memory


@dataclass(frozen=True, slots=True)
class Fault:
    """What the nemesis did. `until`: when it took it back, or saw it done; a kill is over at once."""

    kind: str
    at: float
    until: float
    recovery_s: float  # within so many seconds of `recovers_from` what it hit is PENDING again, or ended
    host: str | None = None  # whom it hit; None: everybody
    pids: frozenset[int] = (
        frozenset()
    )  # which processes of the host, as it sees them; none named: all of them
    reruns: bool = True  # whether a run may be run again for it; most faults are no reason for that
    counts_from_its_start: bool = False
    pauses: bool = False  # a whole host, or its master, stood still: only then may two executions overlap
    disconnects: bool = False  # what an atomic task did on its own connection fails for it
    stalls: bool = False  # whom it hit could write nothing meanwhile, or not all rows
    keeps_working: bool = False  # whom it hit must claim runs all the same

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
    effects: Sequence[Effect] = ()
    cancels: Sequence[Cancel] = ()
    key_answers: Sequence[KeyAnswer] = ()
