"""Whether the checker of the storm would notice: against builds that lack one guard each.

Each scene is played with the guard, where no rule may be broken, and without it, where a certain one must be.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from reproq_prefork import NewRun, enqueue_many
from tests.chaos import bodies, builds
from tests.chaos.arena import CHECKOUT, Arena, arena
from tests.chaos.checker import violations
from tests.chaos.clock import boottime
from tests.chaos.history import Answer
from tests.chaos.hosts import FUNCTIONS, Host
from tests.chaos.kinds import LEASE_S, SWEEP_S
from tests.chaos.load import external
from tests.chaos.schedule import Planned
from tests.chaos.storm import rage
from tests.faketime import clock
from tests.supervisor import Connection
from tests.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]

TWO_HOSTS = ("a", "b")
ALL = 2 * FUNCTIONS.workers  # runs, one for each worker there is
BEGIN_S = 0.3
MOVED_S = BEGIN_S + LEASE_S + SWEEP_S  # by then another host has what a lost one held


@dataclass(frozen=True)
class Scene:
    """`caught_by`: the rule that is broken without the guard."""

    runs: Sequence[NewRun]
    faults: Sequence[Planned]
    caught_by: str
    clocks: Mapping[str, str] = field(default_factory=dict)  # how far the clocks of hosts are off


SCENES = {
    # What host a says at their end arrives after its lease, while host b runs them again.
    "the claim's token in the finish": Scene(
        runs=[bodies.longer_again.new_run(number, 1.0, MOVED_S + 2) for number in range(ALL)],
        faults=[Planned("cut a host off", BEGIN_S, "a", MOVED_S + 1, 0.0)],
        caught_by="what succeeds has run",
    ),
    "the kill of what a dead worker's task has started": Scene(
        runs=[bodies.nested.new_run(number, 4.0) for number in range(ALL)],
        faults=[Planned("kill a worker", BEGIN_S + place / 10, "a", 0.0, place / 4) for place in range(4)],
        caught_by="no two executions side by side",
    ),
    "the server's clock in the sweep": Scene(
        runs=[external(number, "work", max_attempts=3, seconds=SWEEP_S + 2) for number in range(ALL)],
        faults=[],
        caught_by="each second execution is explained",
        clocks={"b": "+1h"},
    ),
    "the fence": Scene(
        runs=[bodies.by_host.new_run(number, {"a": MOVED_S + 4, "b": 1.0}) for number in range(ALL)],
        faults=[Planned("cut a host off", BEGIN_S, "a", MOVED_S + 1, 0.0)],
        caught_by="no two executions side by side",
    ),
}


@pytest.mark.parametrize("guard", SCENES)
def test_with_all_guards_no_rule_is_broken(guard: str, tmp_path: Path) -> None:
    assert _broken_rules(SCENES[guard], tmp_path, CHECKOUT) == set()


@pytest.mark.parametrize("guard", SCENES)
def test_a_guard_that_is_taken_out_is_missed(guard: str, tmp_path: Path) -> None:
    build = builds.without(guard, tmp_path / "build")
    assert SCENES[guard].caught_by in _broken_rules(SCENES[guard], tmp_path, build)


def _broken_rules(scene: Scene, directory: Path, package: Path) -> set[str]:
    # No Python there: a template's forks sleep, which fails under libfaketime.
    no_python = {"ALLOWED_TASK_MODULES": "", "REPROQ_EXECUTOR": "command"}
    environ = {host: {**no_python, **clock(directory, offset)} for host, offset in scene.clocks.items()}
    with arena(directory, names=TWO_HOSTS, package=package, environ=environ) as made:
        history = rage(made, scene.faults, _at_work_on(scene.runs, made))
    found = violations(history)
    for violation in found:
        print(violation)
    return {violation.rule for violation in found}


@contextlib.contextmanager
def _at_work_on(runs: Sequence[NewRun], arena: Arena) -> Iterator[None]:
    """Every worker has one of the runs before it begins, and some work is left for when it ends."""
    for host in arena.hosts.values():
        wait_until(partial(_is_ready, host), 30, "all workers of a host")
    with arena.connect() as connection:
        _enqueue(connection, runs, first=0, log=arena.directory / "told-0")
        wait_until(lambda: _started(arena) == len(runs), 20, "all runs to start")
        yield
        after = [external(len(runs), "nothing")]
        _enqueue(connection, after, first=len(runs), log=arena.directory / "told-0")


def _enqueue(connection: Connection, runs: Sequence[NewRun], *, first: int, log: Path) -> None:
    enqueue_many(connection, runs)
    with log.open("a") as told:
        told.write(f"{first} {len(runs)} {Answer.OK.name} {boottime():.6f}\n")


def _is_ready(host: Host) -> bool:
    return len(host.supervisor.booted_worker_pids()) == host.workers


def _started(arena: Arena) -> int:
    return arena.diary.read_text().count("start") if arena.diary.exists() else 0
