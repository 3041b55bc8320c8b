from __future__ import annotations

import pytest

from reproq_prefork.fleet.state import Fleet, FleetTemplate, FleetWorker, Generation, Limits, Phase, Reload
from reproq_prefork.master.state_dump import state_dump
from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import LostWorker
from reproq_prefork.unix.scoreboard import LeaseRecord, Scoreboard, StewardRecord, WorkerRecord, WorkerState

NOW_NS = 10_000 * 10**9
S = 10**9


def lost(name: str) -> LostWorker:
    return LostWorker(name, None, False, False, FailureKind.WORKER_LOST, "it ended")


def a_fleet(*workers: FleetWorker, **generation: object) -> Fleet:
    limits = Limits(2, 60, 25, 2.5)
    return Fleet(
        max_slots=8,
        max_generations=2,
        generations={1: Generation(1, limits, target=2, **generation)},  # type: ignore[arg-type]
        workers={worker.slot: worker for worker in workers},
    )


def dump(fleet: Fleet, board: Scoreboard | None = None) -> list[str]:
    return list(state_dump(fleet, board or Scoreboard(slots=8, stewards=2), NOW_NS))


def test_the_first_line_shows_the_state_of_the_fleet() -> None:
    assert (
        dump(a_fleet(FleetWorker(0, 1, 1, pid=100)))[0] == "state: running, reload none, 1 of 8 slots in use"
    )
    fleet = Fleet(max_slots=8, max_generations=2, phase=Phase.DRAINING, quiet=True, reload=Reload.STARTING)
    assert dump(fleet) == ["state: draining, quiet, reload starting, 0 of 8 slots in use"]


def test_a_generation_shows_its_steward_and_the_dead_workers_to_be_reset() -> None:
    board = Scoreboard(slots=8, stewards=2)
    fleet = a_fleet(lost_with_orphans=(lost("a"),), lost=(lost("b"), lost("c")), draining=True)
    line = "generation 1: 2 workers wanted, draining, 3 dead workers to be reset, steward"
    assert dump(fleet, board)[1] == f"{line} not up yet"
    board.write_steward(1, StewardRecord(55, NOW_NS - 2 * S, True))
    assert dump(fleet, board)[1] == f"{line} pid 55, connected, seen 2.0 s ago"
    board.write_steward(1, StewardRecord(55, NOW_NS, False))
    assert dump(fleet, board)[1] == f"{line} pid 55, without a connection, seen 0.0 s ago"


def test_a_busy_worker_shows_its_run_its_start_and_its_deadline() -> None:
    board = Scoreboard(slots=8, stewards=2)
    board.write_worker(
        3,
        WorkerRecord(
            incarnation=9,
            pid=100,
            state=WorkerState.BUSY,
            run_id=42,
            attempt=2,
            started_ns=NOW_NS - 3 * S,
            deadline_ns=NOW_NS + 7 * S,
            lease_end_ns=NOW_NS + 5 * S,
            tasks_done=11,
            rss_kib=30 * 1024,
        ),
    )
    board.write_lease(0, 3, LeaseRecord(incarnation=9, lease_end_ns=NOW_NS + 20 * S))
    assert dump(a_fleet(FleetWorker(3, 1, 9, pid=100)), board)[2] == (
        "  worker 3 (pid 100): busy, run 42 attempt 2 for 3.0 s, deadline in 7.0 s, lease for 20.0 s,"
        " 11 done, 30 MiB"
    )


def test_a_worker_without_a_registration_has_no_lease() -> None:
    board = Scoreboard(slots=8, stewards=2)
    board.write_worker(0, WorkerRecord(incarnation=9, state=WorkerState.CONNECTING))
    assert dump(a_fleet(FleetWorker(0, 1, 9, pid=100)), board)[2] == (
        "  worker 0 (pid 100): connecting, no lease, 0 done, 0 MiB"
    )


def test_the_record_and_lease_of_an_earlier_fork_are_not_shown() -> None:
    board = Scoreboard(slots=8, stewards=2)
    board.write_worker(0, WorkerRecord(incarnation=8, state=WorkerState.BUSY, run_id=42))
    fleet = a_fleet(FleetWorker(0, 1, 9, pid=100))
    assert dump(fleet, board)[2] == "  worker 0 (pid 100): booting"
    board.write_worker(0, WorkerRecord(incarnation=9, state=WorkerState.IDLE, lease_end_ns=NOW_NS + S))
    board.write_lease(0, 0, LeaseRecord(incarnation=8, lease_end_ns=NOW_NS + 20 * S))
    assert "lease for 1.0 s" in dump(fleet, board)[2]


@pytest.mark.parametrize(
    ("template", "line"),
    [
        (FleetTemplate(), "not up yet"),
        (FleetTemplate(pid=50, forked_at=9_998), "(pid 50): importing the application, forked 2.0 s ago"),
        (FleetTemplate(pid=50, forked_at=9_400, ready=True), "(pid 50): ready, forked 600.0 s ago"),
        (
            FleetTemplate(pid=50, forked_at=9_400, ready=True, told=9),
            "(pid 50): being ended, forked 600.0 s ago",
        ),
    ],
)
def test_a_template_shows_its_progress(template: FleetTemplate, line: str) -> None:
    assert dump(a_fleet(template=template))[2] == f"  template {line}"


def test_a_worker_that_the_template_has_not_forked_yet_has_no_pid() -> None:
    lines = dump(a_fleet(FleetWorker(0, 1, 9), template=FleetTemplate(pid=50)))
    assert lines[3] == "  worker 0 (being forked): booting"


def test_workers_come_in_the_order_of_their_slots() -> None:
    lines = dump(a_fleet(*(FleetWorker(slot, 1, slot, pid=100 + slot) for slot in (5, 0, 2))))
    assert [line.split()[1] for line in lines[2:]] == ["0", "2", "5"]
