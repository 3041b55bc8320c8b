"""What is said of good tasks beside odd rows, from made-up outcomes."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.storm.odd_rows import Fleet
from benchmarks.storm.odd_verdict import Outcome, tables, worst

FAILED: Mapping[str, int] = {"FAILED": 5}


def outcome(
    what: str = "odd",
    *,
    done: int = 40,
    restarts_s: tuple[float, ...] = (),
    fates: Mapping[str, int] = FAILED,
) -> Outcome:
    return Outcome(what, good=40, done=done, restarts_s=restarts_s, window_s=60.0, fates=fates)


def test_an_outcome_is_described_in_a_sentence() -> None:
    assert outcome().sentence == "40 of 40 done; the 5 FAILED"
    assert (
        outcome(restarts_s=(1.0, 2.0)).sentence
        == "40 of 40 done; workers were restarted 2 times; the 5 FAILED"
    )
    mixed = outcome(done=20, fates={"RUNNING": 2, "READY": 3})
    assert mixed.sentence == "20 of 40 done; no worker ended; of the odd ones 3 READY, 2 RUNNING"


def test_only_restarts_that_go_on_are_a_loop() -> None:
    over = outcome(restarts_s=(1.0, 2.0, 3.0, 4.0, 5.0, 6.0))
    assert not over.is_loop
    going_on = outcome(done=18, restarts_s=(1.0, 15.0, 30.0, 45.0, 59.0))
    assert going_on.is_loop
    assert "workers end and are restarted in a loop (5 times in 60 s)" in going_on.sentence


def test_the_worst_has_the_fewest_good_tasks_done_and_then_the_most_restarts() -> None:
    refused, failed = outcome("refused", fates={"refused": 5}), outcome("failed")
    restarted, stuck = outcome("restarted", restarts_s=(1.0,)), outcome("stuck", done=20)
    assert worst([refused, failed]) is failed
    assert worst([refused, failed, restarted]) is restarted
    assert worst([refused, stuck, failed, restarted]) is stuck


def test_the_tables_show_the_worst_for_each_and_then_all() -> None:
    lines = tables({"ours": [outcome("a"), outcome("b", done=39)]})
    assert lines[2] == "| **ours** | 39 of 40 done; no worker ended; the 5 FAILED | b |"
    assert lines[-2:] == [
        "| ours | a | 40 of 40 done; the 5 FAILED |",
        "| ours | b | 39 of 40 done; no worker ended; the 5 FAILED |",
    ]


def test_a_child_counts_as_replaced_once_another_takes_its_place() -> None:
    fleet = Fleet()
    assert [fleet.replaced(there) for there in ([], [1], [1, 2])] == [0, 0, 0]
    assert fleet.replaced([1]) == 0, "it may end with its master"
    assert fleet.replaced([1, 3]) == 1
    assert fleet.replaced([1, 3]) == 0
    assert fleet.replaced([4, 5]) == 2
