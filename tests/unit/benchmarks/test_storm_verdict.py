"""The verdict over a storm of the benchmarks, from forged lines."""

from __future__ import annotations

from benchmarks.storm.verdict import Execution, Kill, executions, spread, verdict

LINES = [
    "start 0 10 1 100.0",
    "end 0 10 1 100.1",
    "start 1 10 1 101.0",
    "start 1 11 1 103.5",
    "end 1 11 1 103.6",
    "start 2 20 9 101.0",
    "end 2 20 9 102.0",
    "start 2 21 9 101.5",
    "end 2 21 9 102.5",
    "start 3 30 9 104.0",
]
KILLS = [Kill(10, 101.2, master=False), Kill(9, 104.5, master=True)]


def test_executions_are_paired_with_their_ends() -> None:
    assert executions(LINES)[0] == Execution(0, 10, 1, 100.0, 100.1)
    assert executions(LINES)[1] == Execution(1, 10, 1, 101.0, None)


def test_each_task_is_judged() -> None:
    found = verdict(5, executions(LINES), KILLS)
    assert (found.kills, found.kills_of_masters) == (2, 1)
    assert found.never_finished == 2  # 3 was broken off for good, and 4 never began
    assert (found.executed_again, found.again_though_finished, found.side_by_side) == (2, 1, 1)
    assert found.broken_off == 2
    assert [round(seconds, 3) for seconds in found.recoveries_s] == [2.3]


def test_a_spread_is_median_p99_and_maximum() -> None:
    assert spread([]) == "–"
    assert spread([float(number) for number in range(1, 101)]) == "50.50 / 100.00 / 100.00"
