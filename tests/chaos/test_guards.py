"""Whether the checker of the storm would notice: against builds that lack one guard each.

Each scene is played with the guard, where no rule may be broken, and without it, where a certain one must be.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from reproq_prefork import NewRun, TaskRun, enqueue_many
from tests.chaos import bodies, builds
from tests.chaos.arena import Arena, arena
from tests.chaos.cancelling import CancelLog
from tests.chaos.checker import violations
from tests.chaos.clock import boottime
from tests.chaos.history import Answer
from tests.chaos.hosts import FUNCTIONS, SITE, Host
from tests.chaos.kinds import LEASE_S, SWEEP_S
from tests.chaos.load import external, on_site
from tests.chaos.recovery import LENIENCE_S
from tests.chaos.schedule import Planned
from tests.chaos.storm import rage
from tests.support.checkout import CHECKOUT
from tests.support.supervisor.supervisor import Connection
from tests.support.unix.faketime import clock
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(180)]

ALL = 2 * FUNCTIONS.workers  # runs, one for each worker there is of the hosts a and b
ALL_OF_SITE = 2 * SITE.workers
BEGIN_S = 0.3
MOVED_S = BEGIN_S + LEASE_S + SWEEP_S  # by then another host has what a lost one held
TOO_LONG_S = LEASE_S + SWEEP_S + LENIENCE_S  # for what is late without a guard


@dataclass(frozen=True)
class Scene:
    """`caught_by`: the rule that is broken without the guard."""

    runs: Sequence[NewRun]
    faults: Sequence[Planned]
    caught_by: str
    hosts: Collection[str] = ("a", "b")
    clocks: Mapping[str, str] = field(default_factory=dict)  # how far the clocks of hosts are off
    cancels_after_s: float | None = None  # all runs, from when they have started


SCENES = {
    # What host a says at their end arrives after its lease, while host b runs them again.
    "the claim's token in the finish": Scene(
        runs=[bodies.longer_again.new_run(number, 1.0, MOVED_S + 2) for number in range(ALL)],
        faults=[Planned("cut a host off", BEGIN_S, "a", MOVED_S + 1, 0.0)],
        caught_by="a run that succeeds was executed",
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
    "the sweep": Scene(
        runs=[bodies.by_host.new_run(number, {"a": TOO_LONG_S, "b": 1.0}) for number in range(ALL)],
        faults=[Planned("cut a host off", BEGIN_S, "a", TOO_LONG_S + LEASE_S, 0.0)],
        caught_by="no row stays RUNNING without an attempt that runs",
    ),
    "the rollback of what an atomic task did": Scene(
        runs=[on_site("note_and_spoil", number, max_attempts=1) for number in range(ALL_OF_SITE)],
        faults=[],
        caught_by="an atomic task's effects exist once, with its success",
        hosts=("c", "d"),
    ),
    "the cancel of what a lost host held": Scene(
        runs=[bodies.by_host.new_run(number, {"a": MOVED_S + 4, "b": 4.0}) for number in range(ALL)],
        faults=[Planned("cut a host off", BEGIN_S, "a", MOVED_S + 1, 0.0)],
        caught_by="a cancelled run does not run again",
        cancels_after_s=3 * BEGIN_S,
    ),
    "the notice to a worker that its run was cancelled": Scene(
        runs=[bodies.long.new_run(number, TOO_LONG_S + 2) for number in range(ALL)],
        faults=[],
        caught_by="a cancelled run does not run again",
        cancels_after_s=BEGIN_S,
    ),
    "the wait that a Retry asks for": Scene(
        runs=[
            *(bodies.later.new_run(number, after_s=2.0) for number in range(ALL)),
            *(external(ALL + number, "later", after_s=2.0) for number in range(ALL)),
        ],
        faults=[],
        caught_by="a Retry waits as long as it says",
    ),
    "the limit on a task's memory": Scene(
        runs=[bodies.hoarding.new_run(number) for number in range(ALL)],
        faults=[],
        caught_by="only tasks that ask for too much memory run out of it",
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
def test_without_a_guard_its_rule_is_broken(guard: str, tmp_path: Path) -> None:
    build = builds.without(guard, tmp_path / "build")
    assert SCENES[guard].caught_by in _broken_rules(SCENES[guard], tmp_path, build)


def _broken_rules(scene: Scene, directory: Path, package: Path) -> set[str]:
    # No Python there: a template's forks sleep, which fails under libfaketime.
    no_python = {"ALLOWED_TASK_MODULES": "", "REPROQ_EXECUTOR": "command"}
    environ = {host: {**no_python, **clock(directory, offset)} for host, offset in scene.clocks.items()}
    with arena(directory, names=scene.hosts, package=package, environ=environ) as made:
        history = rage(made, scene.faults, _at_work_on(scene, made))
    found = violations(history)
    for violation in found:
        print(violation)
    return {violation.rule for violation in found}


@contextlib.contextmanager
def _at_work_on(scene: Scene, arena: Arena) -> Iterator[None]:
    """Every worker has one of the runs before it begins, and some work is left for when it ends."""
    for host in arena.hosts.values():
        wait_until(partial(_is_ready, host), 30, "all workers of a host")
    with arena.connect() as connection:
        added = _enqueue(connection, scene.runs, first=0, log=arena.directory / "told-0")
        wait_until(lambda: _started(arena) >= len(added), 20, "all runs to start")
        cancelling = ThreadPoolExecutor()
        cancelled = cancelling.submit(_cancel, scene, added, arena)
        yield
        cancelled.result()
        after = [external(len(added), "nothing")]
        _enqueue(connection, after, first=len(added), log=arena.directory / "told-0")


def _cancel(scene: Scene, runs: Sequence[TaskRun], arena: Arena) -> None:
    if scene.cancels_after_s is None:
        return
    log = CancelLog(arena.directory / "cancels-0")
    time.sleep(scene.cancels_after_s)  # what is asked for is the moment
    with arena.connect() as connection:
        for run in runs:
            log.cancel(connection, run.id)


def _enqueue(connection: Connection, runs: Sequence[NewRun], *, first: int, log: Path) -> Sequence[TaskRun]:
    added = enqueue_many(connection, runs)
    with log.open("a") as told:
        told.write(f"{first} {len(runs)} {Answer.OK.name} {boottime():.6f} sane\n")
    return added


def _is_ready(host: Host) -> bool:
    return len(host.supervisor.booted_worker_pids()) == host.workers


def _started(arena: Arena) -> int:
    return arena.diary.read_text().count("start") if arena.diary.exists() else 0
