"""One block of shared memory in which master, steward and workers see each other's state.

Every record has one writer, and a sequence counter around each write (a seqlock). The counter is odd during a
write, so a reader never uses a torn record. If a writer dies inside a write, the record stays odd for ever and
reads as None. During a reload two stewards write about the workers in the slots, so each steward has its own lease
records. So a late answer of one steward says nothing about a worker that another steward has in that slot by then.

Times are nanoseconds of CLOCK_BOOTTIME, which all processes of a host share, and which goes on while the host
sleeps.
"""

from __future__ import annotations

import enum
import mmap
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from operator import attrgetter
from typing import Any, ClassVar, Self, TypeVar

from reproq_prefork.model.identity import ProcessIdentity
from reproq_prefork.unix.signals import pause

READ_ATTEMPTS = 50
READ_RETRY_S = 0.0001
WORKER_ID_BYTES = 160
MAX_UNRECORDED = 4


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class WorkerState(enum.IntEnum):
    NONE = 0
    BOOTING = 1  # until it has registered
    CONNECTING = 2  # it has no connection to the database, and tries to connect
    IDLE = 3
    BUSY = 4
    SETTLING = 5  # the attempt has ended, and is being recorded
    STOPPED = 6  # it has exited in order: it holds no run and is not registered


@dataclass(frozen=True, slots=True)
class _Record:
    LAYOUT: ClassVar[struct.Struct]

    def pack(self) -> tuple[Any, ...]:
        return _values_of(type(self))(self)  # type: ignore[arg-type]  # mypy asks the class for an instance's hash

    @classmethod
    def unpack(cls, values: tuple[Any, ...]) -> Self:
        return cls(*values)


@dataclass(frozen=True, slots=True)
class WorkerRecord(_Record):
    """Written by one worker. `incarnation` 0: the slot was never used."""

    LAYOUT: ClassVar = struct.Struct(f"<QiqiBqqqIqqIqiQQ{WORKER_ID_BYTES}s")

    incarnation: int = 0
    pid: int = 0
    pid_started: int = 0
    steward: int = 0  # the place of the steward that renews its lease
    state: WorkerState = WorkerState.NONE
    seen_ns: int = 0  # its last sign of life
    run_id: int = 0  # the run that it has started and not yet recorded; 0: none
    claim: int = 0
    attempt: int = 0
    started_ns: int = 0
    deadline_ns: int = 0  # 0: none
    waiting: int = 0  # runs that were claimed with this one, and wait for its end
    lease_end_ns: int = 0  # of its registration or its latest claim, minus the margin
    backend_pid: int = 0
    tasks_done: int = 0
    rss_kib: int = 0
    worker_id: str = ""

    def __post_init__(self) -> None:
        if len(self.worker_id.encode()) > WORKER_ID_BYTES:
            # struct would cut it, but the runs of a worker are found by its whole id.
            raise ValueError(f"the worker id {self.worker_id!r} is longer than {WORKER_ID_BYTES} bytes")

    def pack(self) -> tuple[Any, ...]:
        *values, worker_id = _values_of(WorkerRecord)(self)
        return (*values, worker_id.encode())

    @classmethod
    def unpack(cls, values: tuple[Any, ...]) -> Self:
        worker_id = values[-1].rstrip(b"\0").decode()
        return cls(*values[:4], WorkerState(values[4]), *values[5:-1], worker_id)  # type: ignore[call-arg]

    @property
    def process(self) -> ProcessIdentity:
        return ProcessIdentity(self.pid, self.pid_started)

    @property
    def is_registered(self) -> bool:
        """Its lease must be renewed."""
        return self.lease_end_ns > 0 and self.state is not WorkerState.STOPPED

    @property
    def started_run(self) -> tuple[int, int] | None:
        """The (id, claim) of the run that it has started and not yet recorded."""
        return (self.run_id, self.claim) if self.run_id else None


@dataclass(frozen=True, slots=True)
class LeaseRecord(_Record):
    """Written by one steward, about the worker `incarnation`."""

    LAYOUT: ClassVar = struct.Struct("<Qq?qq")

    incarnation: int = 0
    lease_end_ns: int = 0  # minus the margin
    lost: bool = False  # a renewal did not find its registration: its lease has ended
    cancel_run_id: int = 0  # the run that it must end because somebody has cancelled it; 0: none
    cancel_claim: int = 0

    @property
    def cancelled_run(self) -> tuple[int, int] | None:
        """The (id, claim) of the cancelled run. Ignore it if the worker does not execute that run any more."""
        return (self.cancel_run_id, self.cancel_claim) if self.cancel_run_id else None


@dataclass(frozen=True, slots=True)
class UnrecordedRecord(_Record):
    """Written by the worker `incarnation`: runs, by (id, claim), that have ended but could not be recorded.

    The worker carries them along beside the run that it shows. If it dies, these runs had started too.
    """

    LAYOUT: ClassVar = struct.Struct(f"<QB{2 * MAX_UNRECORDED}q")

    incarnation: int = 0
    runs: tuple[tuple[int, int], ...] = ()

    def pack(self) -> tuple[Any, ...]:
        numbers = [number for run in self.runs for number in run]
        return (self.incarnation, len(self.runs), *numbers, *[0] * (2 * MAX_UNRECORDED - len(numbers)))

    @classmethod
    def unpack(cls, values: tuple[Any, ...]) -> Self:
        incarnation, count, *numbers = values
        return cls(incarnation, tuple(zip(numbers[0::2], numbers[1::2], strict=True))[:count])


@dataclass(frozen=True, slots=True)
class StewardRecord(_Record):
    LAYOUT: ClassVar = struct.Struct("<iq?")

    pid: int = 0
    heartbeat_ns: int = 0
    connected: bool = False


@dataclass(frozen=True, slots=True)
class MasterRecord(_Record):
    LAYOUT: ClassVar = struct.Struct("<?")

    quiet: bool = False  # USR2: nobody claims


# The part of WorkerRecord that changes with each run, from `state` to `waiting`, and where it begins.
_RUN = struct.Struct("<BqqqIqqI")
_RUN_OFFSET = struct.calcsize("<Qiqi")
R = TypeVar("R", bound=_Record)


@cache
def _values_of(kind: Any) -> Callable[[_Record], tuple[Any, ...]]:
    names = [field.name for field in fields(kind)]
    if len(names) == 1:
        return lambda record: (getattr(record, names[0]),)
    return attrgetter(*names)


_SEQUENCE = struct.Struct("<Q")


class Scoreboard:
    """The block: one master record, `stewards` steward records, `slots` worker records and unrecorded records, and
    for each steward `slots` lease records.
    """

    def __init__(self, *, slots: int, stewards: int) -> None:
        self.slots = slots
        self.stewards = stewards
        self._offsets: dict[type[_Record], int] = {}
        size = 0
        for kind, count in (
            (MasterRecord, 1),
            (StewardRecord, stewards),
            (LeaseRecord, stewards * slots),
            (UnrecordedRecord, slots),
            (WorkerRecord, slots),
        ):
            self._offsets[kind] = size
            size += count * _cell_bytes(kind)
        self._memory = mmap.mmap(-1, size)

    def read_master(self) -> MasterRecord:
        # The master writes it in one step between two events. It is torn only if the master died in that step.
        return self._read(MasterRecord, 0) or MasterRecord()

    def write_master(self, record: MasterRecord) -> None:
        self._write(record, 0)

    def read_steward(self, index: int) -> StewardRecord | None:
        return self._read(StewardRecord, index)

    def write_steward(self, index: int, record: StewardRecord) -> None:
        self._write(record, index)

    def read_lease(self, steward: int, slot: int) -> LeaseRecord | None:
        return self._read(LeaseRecord, steward * self.slots + slot)

    def write_lease(self, steward: int, slot: int, record: LeaseRecord) -> None:
        self._write(record, steward * self.slots + slot)

    def update_lease(self, slot: int, worker: WorkerRecord, **changes: Any) -> None:
        """Change a part of what the steward has written about a worker: leases and cancels are two duties, but one
        record.

        A record about an earlier worker in the slot, or a torn record, is ignored.
        """
        said = replace(self.lease_of(slot, worker), incarnation=worker.incarnation, **changes)
        self.write_lease(worker.steward, slot, said)

    def lease_of(self, slot: int, worker: WorkerRecord) -> LeaseRecord:
        """What its steward last wrote about this worker. A record about an earlier worker does not count."""
        said = self.read_lease(worker.steward, slot)
        return LeaseRecord() if said is None or said.incarnation != worker.incarnation else said

    def read_worker(self, slot: int) -> WorkerRecord | None:
        return self._read(WorkerRecord, slot)

    def write_worker(self, slot: int, record: WorkerRecord) -> None:
        self._write(record, slot)

    def unrecorded_of(self, slot: int, incarnation: int) -> tuple[tuple[int, int], ...] | None:
        """The runs that this worker carries along. None: it died while it wrote them."""
        record = self._read(UnrecordedRecord, slot)
        if record is None:
            return None
        return record.runs if record.incarnation == incarnation else ()

    def write_unrecorded(self, slot: int, record: UnrecordedRecord) -> None:
        self._write(record, slot)

    def write_run(
        self,
        slot: int,
        run_id: int,
        claim: int,
        attempt: int,
        *,
        started_ns: int,
        deadline_ns: int,
        waiting: int,
    ) -> None:
        """Write only the part of the record that changes with each run: a tenth of the work of a whole write."""
        offset = self._offset(WorkerRecord, slot)
        (sequence,) = _SEQUENCE.unpack_from(self._memory, offset)
        odd = sequence | 1
        _SEQUENCE.pack_into(self._memory, offset, odd)
        _RUN.pack_into(
            self._memory,
            offset + _SEQUENCE.size + _RUN_OFFSET,
            WorkerState.BUSY,
            started_ns,
            run_id,
            claim,
            attempt,
            started_ns,
            deadline_ns,
            waiting,
        )
        _SEQUENCE.pack_into(self._memory, offset, odd + 1)

    def lease_end_ns(self, slot: int, worker: WorkerRecord) -> int:
        """Until when the worker of `slot` may run a task: others may take a run only after both leases have ended,
        that of the run and that of its worker. What the steward wrote about an earlier worker in the slot does not
        count.
        """
        return max(worker.lease_end_ns, self.lease_of(slot, worker).lease_end_ns)

    def steward_place(self, generation: int) -> int:
        """The place of a generation's steward. The places are a ring, and `fleet` never uses one place twice."""
        return generation % self.stewards

    def _write(self, record: _Record, index: int) -> None:
        offset = self._offset(type(record), index)
        packed = record.LAYOUT.pack(
            *record.pack()
        )  # first, because a value that does not fit must not leave the record torn
        (sequence,) = _SEQUENCE.unpack_from(self._memory, offset)
        odd = sequence | 1  # it is already odd if the previous writer died inside a write
        _SEQUENCE.pack_into(self._memory, offset, odd)
        self._memory[offset + _SEQUENCE.size : offset + _SEQUENCE.size + len(packed)] = packed
        _SEQUENCE.pack_into(self._memory, offset, odd + 1)

    def _read(self, kind: type[R], index: int) -> R | None:
        """Read a record. None: it stayed torn, because its writer died (or was stopped) inside a write."""
        offset = self._offset(kind, index)
        for _ in range(READ_ATTEMPTS):
            (before,) = _SEQUENCE.unpack_from(self._memory, offset)
            if before % 2 == 0:
                values = kind.LAYOUT.unpack_from(self._memory, offset + _SEQUENCE.size)
                (after,) = _SEQUENCE.unpack_from(self._memory, offset)
                if after == before:
                    return kind.unpack(values)
            pause(READ_RETRY_S)
        return None

    def _offset(self, kind: type[_Record], index: int) -> int:
        return self._offsets[kind] + index * _cell_bytes(kind)


def _cell_bytes(kind: type[_Record]) -> int:
    bare = _SEQUENCE.size + kind.LAYOUT.size
    return -(-bare // 64) * 64  # whole cache lines, so that writers do not slow each other down
