from __future__ import annotations

import struct
import time
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork.model.identity import ProcessIdentity
from reproq_prefork.unix.panel import WorkerPanel
from reproq_prefork.unix.scoreboard import (
    MAX_UNRECORDED,
    WORKER_ID_BYTES,
    LeaseRecord,
    MasterRecord,
    Scoreboard,
    StewardRecord,
    UnrecordedRecord,
    WorkerRecord,
    WorkerState,
    _Record,
    boottime_ns,
)
from tests.support.unix.children import exit_status_of, forked
from tests.support.waiting import wait_until

WORDS = st.integers(-(2**63), 2**63 - 1)
WORKERS = st.builds(
    WorkerRecord,
    incarnation=st.integers(0, 2**64 - 1),
    pid=st.integers(0, 2**22),
    pid_started=WORDS,
    steward=st.integers(0, 7),
    state=st.sampled_from(WorkerState),
    run_id=WORDS,
    claim=WORDS,
    attempt=st.integers(0, 2**31 - 1),
    started_ns=WORDS,
    deadline_ns=WORDS,
    lease_end_ns=WORDS,
    backend_pid=st.integers(0, 2**31 - 1),
    tasks_done=st.integers(0, 2**64 - 1),
    rss_kib=st.integers(0, 2**64 - 1),
    worker_id=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
)


def a_board(slots: int = 3) -> Scoreboard:
    return Scoreboard(slots=slots, stewards=2)


# --- one process ---


@given(WORKERS, st.integers(0, 2))
def test_a_record_is_read_as_it_was_written(record: WorkerRecord, slot: int) -> None:
    board = a_board()
    board.write_worker(slot, record)
    assert board.read_worker(slot) == record
    assert [board.read_worker(other) for other in range(3) if other != slot] == [WorkerRecord()] * 2


def test_records_of_all_kinds_do_not_overlap() -> None:
    board = a_board()
    board.write_master(MasterRecord(quiet=True))
    board.write_steward(0, StewardRecord(10, 11, True))
    board.write_steward(1, StewardRecord(20, 21, False))
    for slot in range(3):
        board.write_lease(0, slot, LeaseRecord(slot + 1, 100 + slot, False))
        board.write_unrecorded(slot, UnrecordedRecord(slot + 1, ((slot, 7),) * slot))
        board.write_worker(slot, WorkerRecord(incarnation=slot + 1, worker_id=f"w{slot}"))
    assert board.read_master().quiet
    assert board.read_steward(0) == StewardRecord(10, 11, True)
    assert board.read_steward(1) == StewardRecord(20, 21, False)
    for slot in range(3):
        assert board.read_lease(0, slot) == LeaseRecord(slot + 1, 100 + slot, False)
        assert board.unrecorded_of(slot, slot + 1) == ((slot, 7),) * slot
        assert board.read_worker(slot) == WorkerRecord(incarnation=slot + 1, worker_id=f"w{slot}")


def test_a_fork_shows_its_first_unrecorded_ends_and_none_of_the_fork_before() -> None:
    board = a_board()
    first = WorkerPanel(board, 0, WorkerRecord(incarnation=1))
    first.show_unrecorded([(number, 2**40) for number in range(MAX_UNRECORDED + 3)])
    assert board.unrecorded_of(0, 1) == tuple((number, 2**40) for number in range(MAX_UNRECORDED))
    assert board.unrecorded_of(0, 2) == ()
    first.show_unrecorded([(5, 1)])
    assert board.unrecorded_of(0, 1) == ((5, 1),)
    WorkerPanel(board, 0, WorkerRecord(incarnation=2))
    assert board.unrecorded_of(0, 1) == board.unrecorded_of(0, 2) == ()


def test_the_unrecorded_ends_of_a_fork_that_died_inside_the_write_are_unknown() -> None:
    board = a_board()
    WorkerPanel(board, 0, WorkerRecord(incarnation=1)).show_unrecorded([(5, 1)])
    offset = board._offset(UnrecordedRecord, 0)
    (sequence,) = struct.unpack_from("<Q", board._memory, offset)
    struct.pack_into("<Q", board._memory, offset, sequence + 1)
    assert board.unrecorded_of(0, 1) is None
    WorkerPanel(board, 0, WorkerRecord(incarnation=2))
    assert board.unrecorded_of(0, 2) == (), "the next fork writes its own at once"


def test_an_unused_slot_has_an_empty_record() -> None:
    record = a_board().read_worker(0)
    assert record == WorkerRecord()
    assert not record.is_registered
    assert record.started_run is None


def test_a_record_whose_writer_died_inside_a_write_is_none_until_the_next_write() -> None:
    board = a_board()
    record = WorkerRecord(incarnation=1, pid=5)
    board.write_worker(1, record)
    offset = board._offset(WorkerRecord, 1)
    (sequence,) = struct.unpack_from("<Q", board._memory, offset)
    struct.pack_into("<Q", board._memory, offset, sequence + 1)
    assert board.read_worker(1) is None
    board.write_worker(1, record)
    assert board.read_worker(1) == record


def test_a_worker_id_of_the_largest_size_fits_and_one_byte_more_is_refused() -> None:
    board = a_board()
    longest = WorkerRecord(worker_id="é" * (WORKER_ID_BYTES // 2))
    board.write_worker(0, longest)
    assert board.read_worker(0) == longest
    with pytest.raises(ValueError, match="longer than 160 bytes"):
        WorkerRecord(worker_id=longest.worker_id + "x")


def test_a_value_that_does_not_fit_leaves_the_record_as_it_was() -> None:
    board = a_board()
    record = WorkerRecord(incarnation=1)
    board.write_worker(0, record)
    with pytest.raises(struct.error):
        board.write_worker(0, WorkerRecord(incarnation=1, run_id=2**63))
    assert board.read_worker(0) == record


@pytest.mark.parametrize("state", WorkerState)
def test_a_worker_is_registered_from_its_first_lease_until_it_left(state: WorkerState) -> None:
    assert WorkerRecord(lease_end_ns=1, state=state).is_registered == (state is not WorkerState.STOPPED)
    assert not WorkerRecord(lease_end_ns=0, state=state).is_registered


def test_a_record_names_its_process_and_its_run() -> None:
    record = WorkerRecord(pid=5, pid_started=6, run_id=7, claim=8)
    assert record.process == ProcessIdentity(5, 6)
    assert record.started_run == (7, 8)


def test_a_worker_ignores_the_lease_of_an_earlier_fork() -> None:
    board = a_board()
    board.write_lease(0, 1, LeaseRecord(incarnation=4, lease_end_ns=900, lost=True))
    panel = WorkerPanel(board, 1, WorkerRecord(incarnation=5, lease_end_ns=500))
    assert panel.lease() == LeaseRecord()
    assert panel.lease_end_ns() == 500
    board.write_lease(0, 1, LeaseRecord(incarnation=5, lease_end_ns=900))
    assert panel.lease_end_ns() == 900
    panel.update(lease_end_ns=1_000)
    assert panel.lease_end_ns() == 1_000


def test_the_steward_can_change_parts_of_a_lease_record() -> None:
    board = a_board()
    board.update_lease(1, WorkerRecord(incarnation=5), cancel_run_id=7, cancel_claim=2)
    board.update_lease(1, WorkerRecord(incarnation=5), lease_end_ns=100)
    assert board.read_lease(0, 1) == LeaseRecord(5, 100, cancel_run_id=7, cancel_claim=2)
    board.update_lease(1, WorkerRecord(incarnation=5), lost=True, lease_end_ns=0)
    assert board.lease_of(1, WorkerRecord(incarnation=5)).cancelled_run == (7, 2)
    assert board.lease_of(1, WorkerRecord(incarnation=6)) == LeaseRecord()
    board.update_lease(1, WorkerRecord(incarnation=6), lease_end_ns=200)
    assert board.read_lease(0, 1) == LeaseRecord(6, 200), "what was said of an earlier fork is forgotten"


def test_no_run_is_cancelled_before_the_steward_says_so() -> None:
    assert LeaseRecord().cancelled_run is None
    assert LeaseRecord(5, 100).cancelled_run is None


def test_a_panel_shows_every_change_and_reads_the_masters_record() -> None:
    board = a_board()
    panel = WorkerPanel(board, 0, WorkerRecord(incarnation=5))
    before_ns = boottime_ns()
    panel.update(state=WorkerState.BUSY, run_id=7)
    shown = board.read_worker(0)
    assert shown is not None
    assert shown.seen_ns >= before_ns
    assert replace(shown, seen_ns=0) == WorkerRecord(incarnation=5, state=WorkerState.BUSY, run_id=7)
    assert not panel.is_quiet()
    board.write_master(MasterRecord(quiet=True))
    assert panel.is_quiet()


# --- two processes ---


@dataclass(frozen=True, slots=True)
class WideRecord(_Record):
    """Takes so long to copy that a reader and a writer do meet."""

    LAYOUT: ClassVar = struct.Struct("<Q262136s")

    number: int
    filling: bytes

    @classmethod
    def of(cls, number: int) -> WideRecord:
        return cls(number, bytes([number]) * 262_136)


def test_a_reader_never_sees_a_mixture_of_two_records() -> None:
    board = Scoreboard(slots=1_000, stewards=1)
    board._offsets[WideRecord] = 0  # over all others
    records = [WideRecord.of(number) for number in range(1, 100)]

    def write_for_ever() -> int:
        while True:
            for record in records:
                board._write(record, 0)

    with forked(write_for_ever):
        wait_until(lambda: (board._read(WideRecord, 0) or WideRecord.of(0)).number, 10, "the first record")
        seen = set()
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            record = board._read(WideRecord, 0)
            if record is not None:
                assert record == records[record.number - 1]
                seen.add(record.number)
    assert len(seen) > 10, "the writer did write meanwhile"


def test_what_a_child_wrote_is_seen_after_its_death() -> None:
    board = a_board()

    def write_once() -> int:
        board.write_worker(2, WorkerRecord(incarnation=9, run_id=7, claim=1))
        return 0

    with forked(write_once) as child:
        assert exit_status_of(child) == 0
    record = board.read_worker(2)
    assert record is not None
    assert record.started_run == (7, 1)
