"""What is known of a peer: what to install, how it is configured, and how its drain is watched."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import LiteralString


class Service(Enum):
    """What keeps its queue."""

    POSTGRES = "PostgreSQL"
    REDIS = "Redis"


class Runtime(Enum):
    PYTHON = "python"
    NODE = "node"


@dataclass(frozen=True)
class Watch:
    """How the drain of a peer in PostgreSQL is seen from outside.

    `is_drained` gives one boolean, cheaply. `span` gives how many tasks are recorded as done, and the seconds from
    the first start to the last end by the server's clock. A peer that deletes what is done has no such columns:
    then `first_start` gives the seconds since the epoch when the queue began to shrink, null before that, and the
    end is when it is empty.
    """

    is_drained: LiteralString
    span: LiteralString | None = None
    first_start: LiteralString | None = None


@dataclass(frozen=True)
class Peer:
    """One system in its best documented configuration. Its program is `peers/programs/<module>`.

    The program runs in an environment of its own and knows these verbs: `prepare` makes the schema, `enqueue N`
    puts N no-op tasks into an emptied queue by the fastest way there is, `produce N PAUSE_S` enqueues one
    at a time and writes when each call came back, `work` runs one of `processes` workers until SIGTERM, and
    `watch N`, where the queue is no table, waits for N results and writes how long they took.
    """

    name: str
    module: str  # the name of the program
    package: str  # whose version is stated
    requirements: tuple[str, ...]
    configuration: str  # one line
    runs: int  # in a drain: such that it takes some seconds
    processes: int = 2
    service: Service = Service.POSTGRES
    runtime: Runtime = Runtime.PYTHON
    watch: Watch | None = None
    polls: bool = False  # it finds tasks by looking only
    recovery: str = ""  # what its documentation says becomes of the task of a worker that was killed
    option: str = ""  # handed to `work`, where one program serves two configurations
