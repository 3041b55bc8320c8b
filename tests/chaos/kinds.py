"""The kinds of faults of a storm, by the rows of the fault list: what each may bring about, and its bound."""

from __future__ import annotations

import enum
from dataclasses import dataclass

LEASE_S = 2.0
SWEEP_S = 5.0
RECONNECT_S = 5.0  # the longest wait between two tries to reach a server
START_S = 3.0  # of a master, until it asks what its host's dead have left


class Lane(enum.Enum):
    """Faults of one lane come one after the other; the lanes run side by side."""

    QUICK = "over at once"
    SLOW = "lasts, or has something started again"


@dataclass(frozen=True, slots=True)
class Kind:
    """`recovery_s`: see `history.Fault`; of what breaks off no run, how long it may delay what another does."""

    name: str
    row: str
    lane: Lane
    weight: float
    recovery_s: float
    lasts_s: tuple[float, float] = (0.0, 0.0)
    takes_s: float = 0.0  # about, beyond that
    aftermath_s: float = 0.0  # how long it goes on for those it hit when it was taken back
    reruns: bool = False  # a run may be run again for it
    counts_from_its_start: bool = False  # recovery: what is hit is free while the fault goes on
    disconnects: bool = False  # of the connections that tasks themselves have, too
    pauses: bool = False  # two executions of a run may overlap for it
    keeps_working: bool = False  # whom it hits must claim runs all the same
    stalls: bool = False  # nobody can write meanwhile, or not all rows


STOP_IN_COMMIT = "stop a backend in a commit"
READ_ONLY = "turn the server read-only"
FLOOD = "flood the server with notifications"
UNREAD_LOG = "leave a log unread"

KINDS = (
    Kind("kill a worker", "1, 2", Lane.QUICK, 10, 0.25, reruns=True),
    Kind("kill a task", "3, 28", Lane.QUICK, 3, 0.25, reruns=True),
    Kind("kill a steward", "9", Lane.QUICK, 1.5, 1.0),
    Kind("kill a template", "14", Lane.QUICK, 1, 0.25),
    Kind("end a backend", "18", Lane.QUICK, 3, 1.0),
    Kind("lose a reply", "19", Lane.QUICK, 3, 1.0, disconnects=True),
    Kind("kill a master", "4", Lane.SLOW, 2.5, 5.0, takes_s=3, reruns=True, counts_from_its_start=True),
    Kind(
        "kill a whole host",
        "6",
        Lane.SLOW,
        1.5,
        LEASE_S + SWEEP_S,
        takes_s=3,
        reruns=True,
        counts_from_its_start=True,
    ),
    Kind(
        "stop a whole host",
        "7",
        Lane.SLOW,
        1,
        LEASE_S + SWEEP_S,
        (3.0, 5.0),
        reruns=True,
        pauses=True,
        counts_from_its_start=True,
    ),
    Kind("stop a worker", "7b", Lane.SLOW, 1.5, 1.0, (0.5, 3.0)),
    Kind("stop a master", "8", Lane.SLOW, 1, 1.0, (1.0, 4.0), pauses=True),
    Kind("stop a steward", "9", Lane.SLOW, 1, LEASE_S + SWEEP_S, (1.0, 4.0), reruns=True),
    Kind("reload", "15", Lane.SLOW, 1, 1.0),
    Kind("stop and start", "10", Lane.SLOW, 1, 1.0, takes_s=3),
    Kind(
        "crash the server",
        "16",
        Lane.SLOW,
        1,
        SWEEP_S,
        (0.1, 2.0),
        takes_s=1,
        aftermath_s=RECONNECT_S,
        reruns=True,
        stalls=True,
    ),
    Kind(
        "cut a host off",
        "20",
        Lane.SLOW,
        1.5,
        LEASE_S + SWEEP_S,
        (3.0, 6.0),
        reruns=True,
        counts_from_its_start=True,
    ),
    Kind("stop a backend", "21", Lane.SLOW, 1, LEASE_S + SWEEP_S, (1.0, 4.0), reruns=True, stalls=True),
    Kind("slow a link", "22", Lane.SLOW, 1, 2.0, (2.0, 4.0)),
    Kind("reset the links", "22", Lane.SLOW, 1.5, 1.0, disconnects=True),
    Kind("lock the table", "23", Lane.SLOW, 1, 1.0, (0.3, 2.0), stalls=True),
    Kind(STOP_IN_COMMIT, "42", Lane.SLOW, 0.5, LEASE_S + SWEEP_S, (9.0, 12.0), stalls=True),
    Kind(
        READ_ONLY,
        "43",
        Lane.SLOW,
        1,
        LEASE_S + SWEEP_S,
        (2.0, 5.0),
        aftermath_s=RECONNECT_S,
        reruns=True,
        disconnects=True,
        stalls=True,
    ),
    Kind(FLOOD, "41", Lane.SLOW, 0.7, 1.0, (3.5, 5.0), keeps_working=True),
    Kind(UNREAD_LOG, "45", Lane.SLOW, 1, 1.0, (3.5, 6.0), keeps_working=True),
)
BY_NAME = {kind.name: kind for kind in KINDS}
