from __future__ import annotations

import itertools
import signal

import pytest

from reproq_prefork.errors import ExitStatus
from reproq_prefork.fleet import boots
from reproq_prefork.fleet import decide as rules
from reproq_prefork.fleet.actions import (
    DumpState,
    ForkWorker,
    ShowQuiet,
    StartCheck,
    TellSteward,
    WakeWorkers,
)
from reproq_prefork.fleet.events import Drained, OrphansGone, ScoreboardRead, SignalCame, Started
from reproq_prefork.fleet.state import RESPAWN_BURST, Phase, Reload
from reproq_prefork.model.outcome import FailureKind
from tests.support.fakes.fleet_world import (
    BOOT_TIMEOUT_S,
    CONNECT_S,
    FENCE_GRACE_S,
    SHUTDOWN_TIMEOUT_S,
    Child,
    World,
)

TERM, INT, QUIT, KILL = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL


@pytest.fixture
def world() -> World:
    """Three workers that are ready, in twelve slots."""
    world = World(slots=12)
    world.start(3)
    return world


def make_busy(worker: Child, **limits: float) -> None:
    """It runs something that no TERM and no QUIT ends."""
    worker.obeys = False
    worker.started = (7, 1)
    worker.deadline_at = limits.get("deadline_at")
    worker.lease_ends_at = limits.get("lease_ends_at")


# --- the start ---


def test_nothing_is_forked_before_the_settings_are_checked() -> None:
    world = World()
    world.feed(Started())
    world.look()
    assert world.is_checking()
    assert not world.children


def test_a_start_goes_from_the_check_over_forks_to_ready() -> None:
    world = World()
    world.feed(Started())
    world.pass_check(3)
    assert (len(world.workers), len(world.stewards)) == (3, 1)
    assert world.told_systemd == []
    world.tick()
    world.tick()
    assert world.told_systemd == ["READY=1"]
    world.run_for(5)
    assert world.told_systemd == ["READY=1"]


def test_ready_means_that_every_worker_is_ready() -> None:
    world = World()
    world.workers_boot = False
    world.feed(Started())
    world.pass_check(2)
    first, second = world.workers
    first.boots = True
    world.run_for(2)
    assert world.told_systemd == []
    second.boots = True
    world.run_for(2)
    assert world.told_systemd == ["READY=1"]


def test_settings_that_do_not_work_end_the_start_with_their_own_status() -> None:
    world = World()
    world.feed(Started())
    world.fail_check("no such executor")
    assert world.exit_status is ExitStatus.USAGE
    assert world.logged("no such executor")


@pytest.mark.parametrize("signum", [TERM, INT, QUIT])
def test_a_stop_during_the_first_check_abandons_it(signum: int) -> None:
    world = World()
    world.feed(Started())
    world.signal(signum)
    assert world.exit_status is ExitStatus.OK


# --- deaths ---


def test_a_killed_worker_is_replaced_at_once(world: World) -> None:
    victim = world.workers[1]
    world.kill(victim)
    assert len(world.workers) == 3
    assert victim.pid not in world.children


def test_a_dead_worker_is_reported_only_once_its_orphans_are_gone(world: World) -> None:
    world.orphans_die = False
    victim = world.workers[0]
    victim.started = (7, 1)
    world.kill(victim)
    world.run_for(2)
    assert world.count(TellSteward) == 0
    world.feed(OrphansGone())
    (told,) = [action.lost for action in world.actions if isinstance(action, TellSteward)]
    assert (told.worker_id, told.started, told.kind) == (victim.worker_id, (7, 1), FailureKind.WORKER_LOST)
    assert not told.refund
    assert not told.charge_all


def test_a_worker_that_exited_cleanly_is_replaced_and_not_reported(world: World) -> None:
    world.end(world.workers[0], 0, in_order=True)
    world.run_for(2)
    assert len(world.workers) == 3
    assert world.lost == {}


def test_a_half_written_record_charges_every_run_that_the_worker_held(world: World) -> None:
    victim = world.workers[0]
    world.end(victim, -KILL, torn=True)
    assert world.lost[victim.worker_id].charge_all


def test_a_worker_that_lost_its_lease_is_reported_as_such(world: World) -> None:
    victim = world.workers[0]
    world.end(victim, ExitStatus.LEASE_LOST)
    assert world.lost[victim.worker_id].kind is FailureKind.LEASE_EXPIRED


def test_a_new_steward_gets_the_dead_workers_that_are_not_reset_yet(world: World) -> None:
    world.database_is_up = False
    first, second = world.workers[:2]
    world.kill(first)
    world.tick()
    world.database_is_up = True
    world.tick()
    world.database_is_up = False
    world.kill(second)
    world.run_for(2)
    world.kill(world.stewards[0])
    world.run_for(2)
    assert [lost.worker_id for lost in world.stewards[0].told] == [second.worker_id]


def test_an_answer_about_an_unknown_worker_changes_nothing(world: World) -> None:
    world.kill(world.workers[0])
    world.run_for(1)
    again = world.lost.popitem()[1]
    before = world.fleet.generations
    world.stewards[0].told.append(again)
    world.tick()
    assert world.fleet.generations == before


def test_respawns_beyond_a_burst_are_limited_in_rate(world: World) -> None:
    forks = len(world.fork_times)
    for _ in range(400):
        world.tick()
        for worker in world.workers:
            if worker.registered:
                world.kill(worker)
    elapsed_s = 400 * 0.25
    made = len(world.fork_times) - forks
    assert made <= RESPAWN_BURST + boots.RESPAWNS_A_SECOND * elapsed_s + 3
    assert made > elapsed_s, "it does go on"


def test_workers_that_lose_their_lease_at_once_cause_no_fork_storm(world: World) -> None:
    for _ in range(1000):
        world.now += 0.01
        for worker in world.workers:
            worker.registered = False
            world.end(worker, ExitStatus.LEASE_LOST)
        world.look()
    assert len(world.fork_times) <= 3 + RESPAWN_BURST + boots.RESPAWNS_A_SECOND * 10 + 3


def test_a_failed_fork_is_tried_again_after_a_while(world: World) -> None:
    world.forks_fail = True
    world.kill(world.workers[0])
    forks = len(world.fork_times)
    world.run_for(10)
    assert len(world.fork_times) - forks <= 10 / boots.FORK_RETRY_S
    world.forks_fail = False
    world.run_for(2 * boots.FORK_RETRY_S)
    assert len(world.workers) == 3


def test_a_steward_that_cannot_be_forked_is_tried_again_after_a_while(world: World) -> None:
    world.forks_fail = True
    world.kill(world.stewards[0])
    world.run_for(3)
    assert world.stewards == []
    world.forks_fail = False
    world.run_for(2 * boots.FORK_RETRY_S)
    assert len(world.stewards) == 1


# --- boots that fail ---


def fail_boots(world: World, seconds: float) -> None:
    """Every worker dies a moment after its fork, before it is ready."""
    end = world.now + seconds
    while world.now < end and world.goes_on():
        world.now += 0.05
        for worker in world.workers:
            world.end(worker, 1)
        world.look()
    world.run_for(1)


@pytest.mark.parametrize("workers", [1, 6])
def test_workers_that_cannot_boot_end_the_start_after_three_rounds(workers: int) -> None:
    world = World(slots=12)
    world.workers_boot = False
    world.feed(Started())
    world.pass_check(workers)
    fail_boots(world, 60)
    assert world.exit_status is ExitStatus.BOOT_FAILED
    assert len(world.fork_times) == 3 * workers
    assert world.logged("ended before it was ready")


@pytest.mark.parametrize("workers", [1, 6])
def test_workers_that_hang_in_their_boot_are_killed_at_the_boot_deadline(workers: int) -> None:
    world = World(slots=12)
    world.workers_boot = world.workers_obey = False
    world.feed(Started())
    world.pass_check(workers)
    world.run_for(BOOT_TIMEOUT_S - 1)
    assert all(worker.signals == [] for worker in world.workers)
    world.run_for(3 * BOOT_TIMEOUT_S + 20)
    assert world.exit_status is ExitStatus.BOOT_FAILED
    assert len(world.fork_times) == 3 * workers


def test_a_short_failure_of_many_workers_does_not_end_the_start() -> None:
    world = World(slots=12)
    world.feed(Started())
    world.pass_check(6)
    for worker in world.workers:
        world.end(worker, 1)
    world.run_for(5)
    assert world.goes_on()
    assert world.told_systemd == ["READY=1"]


def test_after_the_start_failed_boots_back_off_and_never_end_the_fleet(world: World) -> None:
    world.workers_boot = False
    world.kill(world.workers[0])
    forks = len(world.fork_times)
    fails_s = 3_600
    end = world.now + fails_s
    while world.now < end:
        world.tick(1)
        for worker in world.workers:
            if worker.booting:
                world.end(worker, 1)
    assert world.goes_on()
    assert len(world.fork_times) - forks < 10 + fails_s / boots.BOOT_BACKOFF_MAX_S
    world.workers_boot = True
    world.run_for(2 * boots.BOOT_BACKOFF_MAX_S)
    assert len(world.workers) == 3


def test_a_boot_that_has_failed_for_weeks_is_still_tried(world: World) -> None:
    world.workers_boot = False
    world.kill(world.workers[0])
    for _ in range(2_000):
        world.tick(4.0)
        world.now += boots.BOOT_BACKOFF_MAX_S
        world.look()
        for worker in world.workers:
            if worker.booting:
                world.end(worker, 1)
    assert world.fleet.generations[1].boot_failures > 1_100


def test_the_death_of_a_ready_worker_does_not_shorten_the_boot_backoff(world: World) -> None:
    world.workers_boot = False
    world.kill(world.workers[2])
    for _ in range(100):
        world.tick()
        for worker in world.workers:
            if worker.booting:
                world.end(worker, 1)
    forks = len(world.fork_times)
    world.kill(world.workers[0])
    world.tick()
    assert len(world.fork_times) == forks


# --- connections that cannot be had ---


def a_start_with_connections_for(ready: int, of: int) -> World:
    world = World(slots=12)
    world.workers_connect = False
    world.feed(Started())
    world.pass_check(of)
    for worker in world.workers[:ready]:
        worker.connects = True
    return world


def test_a_host_whose_workers_cannot_all_connect_is_ready_with_those_that_can() -> None:
    """`max_connections` is too small. Earlier, the host exited after three boot timeouts."""
    world = a_start_with_connections_for(2, of=5)
    world.run_for(BOOT_TIMEOUT_S - 1)
    assert world.told_systemd == []
    world.run_for(2)
    assert world.told_systemd == ["READY=1"]
    assert world.logged("ready: 2 of 5 workers; the others wait for a connection to the database")
    world.run_for(20 * BOOT_TIMEOUT_S)
    assert world.goes_on()
    assert [worker.signals for worker in world.workers] == [[]] * 5
    assert len(world.fork_times) == 5
    for worker in world.workers:
        worker.connects = True
    world.run_for(2)
    assert world.told_systemd == ["READY=1"]
    assert world.logged("all 5 workers are ready now")
    world.run_for(20)
    assert sum("all 5 workers" in line for line in messages(world)) == 1


def test_such_a_host_is_not_ready_while_another_worker_still_boots() -> None:
    world = a_start_with_connections_for(2, of=5)
    world.workers[4].booting, world.workers[4].boots = True, False
    world.run_for(BOOT_TIMEOUT_S + 1)
    assert world.told_systemd == []
    assert world.logged("killing worker 4")


def test_if_no_worker_can_connect_each_has_the_time_that_the_address_allows() -> None:
    """Four addresses drop packets, for 21 s each. Earlier, the address behind them was never reached."""
    world = a_start_with_connections_for(0, of=2)
    world.run_for(BOOT_TIMEOUT_S + CONNECT_S - 1)
    assert [worker.signals for worker in world.workers] == [[], []]
    world.workers[0].connects = True
    world.run_for(2)
    assert world.told_systemd == ["READY=1"]
    assert world.logged("ready: 1 of 2 workers")


def test_the_start_fails_if_no_worker_ever_connects() -> None:
    world = a_start_with_connections_for(0, of=2)
    world.run_for(4 * (BOOT_TIMEOUT_S + CONNECT_S))
    assert world.exit_status is ExitStatus.BOOT_FAILED


def test_a_reload_goes_on_if_some_new_workers_wait_for_connections_of_the_old(world: World) -> None:
    old = world.workers
    world.workers_connect = False
    reload(world, 4)
    world.workers_of(2)[0].connects = True
    world.run_for(BOOT_TIMEOUT_S + 1)
    assert world.logged("reloaded: 1 of 4 new workers are ready, and the others wait for a connection")
    world.run_for(2)
    assert not any(worker.pid in world.children for worker in old)
    for worker in world.workers:
        worker.connects = True
    world.run_for(2)
    assert world.logged("all 4 workers are ready now")


def test_after_the_start_a_worker_that_waits_for_the_database_is_not_killed(world: World) -> None:
    world.workers_connect = False
    world.kill(world.workers[0])
    (waiting,) = [worker for worker in world.workers if worker.booting]
    world.run_for(3 * BOOT_TIMEOUT_S)
    assert waiting.pid in world.children
    assert waiting.signals == []


def test_a_run_that_kills_workers_at_the_start_does_not_count_as_a_failed_boot() -> None:
    world = World()
    world.feed(Started())
    world.pass_check(2)
    for _ in range(100):
        world.now += 0.1
        for worker in world.workers:
            worker.started = (7, 1)
            world.kill(worker)
        world.look()
    world.run_for(5)
    assert world.goes_on()
    assert world.told_systemd == ["READY=1"]


# --- the end ---


def test_a_drain_lets_tasks_finish(world: World) -> None:
    make_busy(world.workers[0])
    busy = world.workers[0]
    world.signal(TERM)
    assert all(worker.signals == [TERM] for worker in world.workers)
    world.run_for(SHUTDOWN_TIMEOUT_S - 2)
    assert world.workers == [busy]
    assert busy.signals == [TERM]
    world.end(busy, 0, in_order=True)
    world.run_for(1)
    assert world.exit_status is ExitStatus.OK
    assert world.told_systemd == ["READY=1", "STOPPING=1"]


def test_a_drain_that_takes_too_long_quits_then_kills_and_refunds(world: World) -> None:
    busy = world.workers[0]
    make_busy(busy)
    world.signal(TERM)
    world.run_for(SHUTDOWN_TIMEOUT_S + 1)
    assert busy.signals == [TERM, QUIT]
    world.run_for(rules.QUIT_GRACE_S + 1)
    assert busy.signals == [TERM, QUIT, KILL]
    world.run_for(3)
    lost = world.lost[busy.worker_id]
    assert (lost.refund, lost.kind, lost.started) == (True, FailureKind.SHUTDOWN, (7, 1))
    assert world.reset == {busy.worker_id}
    assert world.exit_status is ExitStatus.OK


@pytest.mark.parametrize("second", [INT, TERM])
def test_a_second_interrupt_stops_at_once(world: World, second: int) -> None:
    make_busy(world.workers[0])
    world.signal(INT)
    assert world.phase() is Phase.DRAINING
    world.signal(second)
    assert world.phase() is Phase.STOPPING
    assert world.workers[0].signals == [TERM, QUIT]


def test_a_second_term_changes_nothing(world: World) -> None:
    make_busy(world.workers[0])
    world.signal(TERM, TERM, TERM)
    assert world.phase() is Phase.DRAINING
    assert world.workers[0].signals == [TERM]


def test_quit_stops_at_once(world: World) -> None:
    make_busy(world.workers[0])
    world.signal(QUIT)
    assert all(worker.signals == [QUIT] for worker in world.workers)
    world.run_for(rules.QUIT_GRACE_S + 3)
    assert world.exit_status is ExitStatus.OK


def test_a_worker_that_dies_of_a_quit_is_refunded(world: World) -> None:
    victim = world.workers[0]
    make_busy(victim)
    world.signal(QUIT)
    world.kill(victim)
    assert world.lost[victim.worker_id].refund


def test_a_worker_that_dies_in_a_drain_is_charged(world: World) -> None:
    victim = world.workers[0]
    make_busy(victim)
    world.signal(TERM)
    world.kill(victim)
    assert not world.lost[victim.worker_id].refund


def test_no_signal_is_sent_twice_to_a_worker(world: World) -> None:
    make_busy(world.workers[0])
    busy = world.workers[0]
    world.signal(INT, INT, QUIT, TERM, signal.SIGHUP, QUIT)
    world.run_for(3)
    assert busy.signals == [TERM, QUIT]


@pytest.mark.parametrize("burst", list(itertools.permutations([TERM, INT, QUIT, signal.SIGHUP])))
def test_phases_only_advance_in_any_burst(burst: tuple[int, ...]) -> None:
    world = World(slots=12)
    world.start(3)
    world.signal(*burst, signal.SIGCHLD, signal.SIGTTIN, signal.SIGUSR2)
    assert world.phase() is Phase.STOPPING
    world.run_for(3)
    assert world.exit_status is ExitStatus.OK
    assert world.told_systemd.count("STOPPING=1") == 1


def test_the_steward_leaves_last(world: World) -> None:
    make_busy(world.workers[0])
    steward = world.stewards[0]
    world.signal(TERM)
    world.run_for(10)
    assert steward.signals == []
    world.end(world.workers[0], in_order=True)
    world.tick()
    assert steward.signals == [QUIT]


def test_a_steward_that_does_not_leave_is_killed(world: World) -> None:
    world.stewards[0].frozen = True
    world.signal(TERM)
    world.run_for(rules.QUIT_GRACE_S + 2)
    assert world.exit_status is ExitStatus.OK


def test_at_the_end_the_steward_does_not_wait_for_the_database_without_limit(world: World) -> None:
    world.database_is_up = False
    make_busy(world.workers[0])
    world.signal(QUIT)
    world.run_for(rules.QUIT_GRACE_S + rules.FAREWELL_S - 1)
    assert world.goes_on()
    world.run_for(5)
    assert world.exit_status is ExitStatus.OK
    assert world.logged("wait for the end of their leases")


def test_a_steward_that_dies_during_the_shutdown_is_replaced_while_it_is_needed(world: World) -> None:
    world.database_is_up = False
    world.kill(world.workers[0])
    world.signal(TERM)
    world.run_for(2)
    world.kill(world.stewards[0])
    world.database_is_up = True
    world.run_for(3)
    assert world.reset == set(world.lost)
    assert world.exit_status is ExitStatus.OK


def test_drained_queues_end_the_fleet(world: World) -> None:
    world.feed(Drained(1))
    assert world.phase() is Phase.DRAINING
    world.run_for(2)
    assert world.exit_status is ExitStatus.OK


def test_drained_queues_of_an_old_generation_end_nothing(world: World) -> None:
    reload(world, 3)
    make_busy(world.workers_of(1)[0])
    world.run_for(1)
    world.feed(Drained(1))
    assert world.phase() is Phase.RUNNING


# --- reload ---


def reload(world: World, workers: int) -> None:
    """SIGHUP, a check that passes; the old workers do not leave by themselves."""
    world.signal(signal.SIGHUP)
    world.pass_check(workers)


def test_a_reload_starts_new_workers_waits_until_they_are_ready_and_drains_the_old(world: World) -> None:
    old = world.workers
    for worker in old:
        make_busy(worker)
    world.workers_boot = False
    reload(world, 4)
    assert len(world.workers_of(2)) == 4
    world.run_for(20)
    assert all(worker.signals == [] for worker in old)
    for worker in world.workers_of(2):
        worker.boots = True
    world.run_for(1)
    assert all(worker.signals == [TERM] for worker in old)
    assert world.told_systemd == ["READY=1", "RELOADING=1", "READY=1"]


def test_an_old_generation_drains_without_limit(world: World) -> None:
    old = world.workers[0]
    make_busy(old)
    reload(world, 3)
    world.run_for(40 * SHUTDOWN_TIMEOUT_S)
    assert old.signals == [TERM]
    assert {steward.generation for steward in world.stewards} == {1, 2}
    world.end(old, in_order=True)
    world.run_for(2)
    assert {steward.generation for steward in world.stewards} == {2}
    assert set(world.fleet.generations) == {2}


def test_a_worker_of_an_old_generation_that_dies_is_reset_by_its_own_steward(world: World) -> None:
    old = world.workers[0]
    make_busy(old)
    reload(world, 3)
    world.run_for(2)
    world.kill(old)
    assert len(world.workers_of(1)) == 0
    world.run_for(2)
    assert old.worker_id in world.reset
    assert set(world.fleet.generations) == {2}


def test_a_reload_whose_check_fails_changes_nothing(world: World) -> None:
    before = world.workers
    world.signal(signal.SIGHUP)
    world.fail_check("the module is broken")
    world.run_for(1)
    assert world.workers == before
    assert all(worker.signals == [] for worker in before)
    assert world.logged("nothing has changed: the module is broken")
    assert world.told_systemd == ["READY=1", "RELOADING=1", "READY=1"]
    reload(world, 3)
    world.run_for(2)
    assert set(world.fleet.generations) == {2}


def test_a_hup_during_a_check_is_remembered_once(world: World) -> None:
    world.signal(signal.SIGHUP, signal.SIGHUP, signal.SIGHUP)
    world.fail_check()
    assert world.is_checking()
    world.pass_check(3)
    world.run_for(2)
    assert not world.is_checking()
    assert set(world.fleet.generations) == {2}


def test_a_hup_while_the_new_generation_starts_is_remembered(world: World) -> None:
    reload(world, 3)
    world.signal(signal.SIGHUP)
    assert not world.is_checking()
    world.run_for(1)
    assert world.is_checking()
    world.pass_check(3)
    world.run_for(2)
    assert set(world.fleet.generations) == {3}


def test_a_hup_during_the_first_check_is_remembered() -> None:
    world = World(slots=12)
    world.feed(Started())
    world.signal(signal.SIGHUP)
    world.pass_check(2)
    assert world.is_checking()
    world.pass_check(3)
    world.run_for(2)
    assert {worker.generation for worker in world.workers} == {2}
    assert not world.is_checking()


def test_a_hup_during_a_first_check_that_fails_checks_again() -> None:
    world = World(slots=12)
    world.feed(Started())
    world.signal(signal.SIGHUP)
    world.fail_check()
    assert world.goes_on()
    world.pass_check(2)
    world.run_for(1)
    assert world.told_systemd == ["READY=1"]


def test_new_workers_that_cannot_boot_are_rolled_back_and_the_old_stay(world: World) -> None:
    old = world.workers
    world.workers_boot = world.workers_obey = False
    reload(world, 4)
    fail_boots_of(world, 2, 60)
    assert world.goes_on()
    assert world.workers == old
    assert all(worker.signals == [] for worker in old)
    assert world.logged("rolled back")
    assert set(world.fleet.generations) == {1}
    assert world.told_systemd == ["READY=1", "RELOADING=1", "READY=1"]


def fail_boots_of(world: World, generation: int, seconds: float) -> None:
    end = world.now + seconds
    while world.now < end and world.goes_on():
        world.tick()
        for worker in world.workers_of(generation):
            world.end(worker, 1)


def test_a_roll_back_of_hanging_workers_does_not_end_a_later_reload(world: World) -> None:
    world.workers_boot = world.workers_obey = False
    reload(world, 4)
    world.signal(signal.SIGHUP)  # remembered: it begins as soon as the roll-back has
    world.run_for(3 * BOOT_TIMEOUT_S + 10)
    assert world.logged("rolled back")
    assert sum("rolled back" in line for line in messages(world)) == 1
    world.workers_boot = world.workers_obey = True
    world.pass_check(3)
    world.run_for(20)
    assert {worker.generation for worker in world.workers} == {3}


def test_a_roll_back_quits_the_new_workers_that_did_boot(world: World) -> None:
    world.workers_boot = False
    reload(world, 4)
    stubborn = world.workers_of(2)[0]
    stubborn.boots, stubborn.obeys = True, False
    for _ in range(20):
        world.tick()
        for worker in world.workers_of(2):
            if worker is not stubborn:
                world.end(worker, 1)
    assert world.logged("rolled back")
    assert stubborn.signals == [QUIT]
    world.run_for(rules.QUIT_GRACE_S)
    assert stubborn.signals == [QUIT, KILL]
    assert set(world.fleet.generations) == {1}


def messages(world: World) -> list[str]:
    return [getattr(action, "message", "") for action in world.actions]


def test_the_first_generation_getting_ready_does_not_end_a_reload() -> None:
    world = World(slots=12)
    world.feed(Started())
    world.pass_check(2)
    world.workers_boot = False
    reload(world, 3)
    world.run_for(2)
    assert all(worker.signals == [] for worker in world.workers)
    for worker in world.workers:
        worker.boots = True
    world.run_for(2)
    assert [worker.generation for worker in world.workers] == [2, 2, 2]


def test_a_first_generation_that_cannot_boot_is_replaced_by_the_next() -> None:
    world = World(slots=12)
    world.workers_boot = False
    world.feed(Started())
    world.pass_check(2)
    world.workers_boot = True
    reload(world, 3)
    while world.fleet.generations[1].boot_failures < boots.BOOT_FAILURE_LIMIT:
        for worker in world.workers_of(1):
            world.end(worker, 1)
        world.now += 0.25
        world.look()
    world.run_for(3)
    assert world.goes_on()
    assert [worker.generation for worker in world.workers] == [2, 2, 2]


def test_a_reload_keeps_a_slot_for_a_worker_that_will_be_replaced() -> None:
    """Otherwise the replacement takes it, and the new generation waits for its last worker for ever."""
    world = World(slots=8)
    world.feed(Started())
    world.pass_check(5)
    world.run_for(1)
    world.forks_fail = True
    world.end(world.workers[0], in_order=True)
    reload(world, 4)
    world.forks_fail = False
    world.run_for(60)
    assert world.fleet.reload is Reload.NONE
    assert world.logged("still drain")
    assert len(world.workers) == 5


def test_a_reload_is_refused_while_earlier_generations_fill_the_slots(world: World) -> None:
    for generation in (2, 3, 4):
        for worker in world.workers:
            make_busy(worker)
        reload(world, 3)
        world.run_for(1)
        assert len(world.workers_of(generation)) == 3
    reload(world, 3)
    assert world.logged("still drain")
    assert len(world.workers) == 12
    for worker in world.workers_of(1):
        world.end(worker, in_order=True)
    world.run_for(1)
    reload(world, 3)
    world.run_for(1)
    assert len(world.workers_of(5)) == 3


def test_a_reload_to_more_workers_than_there_are_slots_says_that_a_restart_is_needed(
    world: World,
) -> None:
    reload(world, 7)
    assert world.logged("room for 6; restart it")
    assert len(world.workers) == 3


def test_generations_that_live_at_the_same_time_never_share_a_slot(world: World) -> None:
    make_busy(world.workers[0])
    for _ in range(20):
        reload(world, 3)
        world.run_for(2)
    places = [number % world.fleet.max_generations for number in world.fleet.generations]
    assert 1 in world.fleet.generations
    assert len(places) == len(set(places)) == 2


def test_no_reload_begins_in_a_drain(world: World) -> None:
    make_busy(world.workers[0])
    world.signal(TERM, signal.SIGHUP)
    assert not world.is_checking()
    assert world.count(StartCheck) == 1


@pytest.mark.parametrize("signum", [TERM, QUIT])
def test_a_stop_in_a_reload_stops_both_generations(world: World, signum: int) -> None:
    reload(world, 3)
    world.signal(signum)
    assert all(worker.signals == [signum] for worker in world.workers)
    world.run_for(3)
    assert world.exit_status is ExitStatus.OK


# --- more and fewer, quiet, dumps ---


def test_ttin_and_ttou_change_the_number_within_limits(world: World) -> None:
    world.signal(*[signal.SIGTTIN] * 10)
    assert len(world.workers) == 6
    assert world.logged("the limits are 1 and 6")
    world.signal(*[signal.SIGTTOU] * 10)
    world.run_for(1)
    assert [worker.slot for worker in world.workers] == [0]
    world.signal(signal.SIGTTIN)
    assert len(world.workers) == 2


def test_with_fewer_workers_the_highest_slots_are_drained(world: World) -> None:
    for worker in world.workers:
        make_busy(worker)
    world.signal(signal.SIGTTOU)
    assert [worker.signals for worker in world.workers] == [[], [], [TERM]]
    world.run_for(2)
    assert len(world.workers) == 3
    assert world.count(ForkWorker) == 3


def test_a_worker_in_its_fork_is_never_signalled() -> None:
    fleet, actions = rules.decide(World(slots=12).fleet, Started(), 0)
    world = World(slots=12)
    world.feed(Started())
    world.forks_fail = True
    world.pass_check(3)
    world.now += 2
    # The answers to these forks are still on their way.
    fleet, actions = rules.decide(world.fleet, ScoreboardRead({}, {}), world.now)
    assert sum(isinstance(action, ForkWorker) for action in actions) == 3
    fleet, actions = rules.decide(fleet, SignalCame(signal.SIGTTOU), world.now)
    fleet, more = rules.decide(fleet, SignalCame(TERM), world.now)
    assert not [action for action in actions + more if "SendSignal" in repr(action)]


def test_usr2_toggles_quiet_and_wakes_the_workers_after_it(world: World) -> None:
    world.signal(signal.SIGUSR2)
    assert world.actions[-2] == ShowQuiet(True)
    assert world.count(WakeWorkers) == 0
    world.signal(signal.SIGUSR2)
    assert ShowQuiet(False) in world.actions
    assert world.count(WakeWorkers) == 1


def test_usr1_dumps_the_state(world: World) -> None:
    world.signal(signal.SIGUSR1)
    assert world.actions[-1] == DumpState()


# --- what is late ---


def test_a_worker_that_does_not_end_its_task_at_the_deadline_is_killed(world: World) -> None:
    victim = world.workers[0]
    make_busy(victim, deadline_at=world.now + 10)
    world.run_for(10 + rules.DEADLINE_GRACE_S - 1)
    assert victim.signals == []
    world.run_for(2)
    assert victim.signals == [KILL]
    assert world.lost[victim.worker_id].kind is FailureKind.TIMEOUT
    assert not world.lost[victim.worker_id].refund
    assert len(world.workers) == 3


def test_a_worker_that_does_not_end_its_task_with_its_lease_is_killed(world: World) -> None:
    victim = world.workers[0]
    make_busy(victim, lease_ends_at=world.now + 10)
    world.run_for(10 + FENCE_GRACE_S - 1)
    assert victim.signals == []
    world.run_for(2)
    assert victim.signals == [KILL]
    assert world.lost[victim.worker_id].kind is FailureKind.LEASE_EXPIRED


def test_an_idle_worker_without_a_sign_of_life_is_killed(world: World) -> None:
    victim = world.workers[0]
    victim.seen_at = world.now
    world.run_for(rules.WORKER_STALE_S - 1)
    assert victim.signals == []
    world.run_for(2)
    assert victim.signals == [KILL]
    assert world.lost[victim.worker_id].kind is FailureKind.WORKER_LOST
    assert len(world.workers) == 3


def test_a_worker_that_sigkill_does_not_end_at_once_is_killed_once_and_replaced(world: World) -> None:
    victim = world.workers[0]
    make_busy(victim, deadline_at=world.now, lease_ends_at=world.now)
    for _ in range(4):
        world.now += rules.DEADLINE_GRACE_S / 2
        world.look()
    world.signal(QUIT)
    assert victim.signals == [KILL]
    assert len(world.workers) == 4


def test_the_record_of_an_earlier_fork_kills_no_worker(world: World) -> None:
    victim = world.workers[0]
    make_busy(victim, deadline_at=world.now)
    stale = World.look
    world.kill(victim)
    (fresh,) = [worker for worker in world.workers if worker.booting]
    fresh.incarnation, real = victim.incarnation, fresh.incarnation
    fresh.deadline_at = 0.0
    stale(world)
    fresh.incarnation, fresh.deadline_at = real, None
    assert fresh.signals == []


def test_workers_are_not_blamed_for_a_pause_of_the_master(world: World) -> None:
    world.workers_boot = False
    world.kill(world.workers[2])
    late, lost, booting = world.workers
    make_busy(late, deadline_at=world.now + 10)
    make_busy(lost, lease_ends_at=world.now + 10)
    heartbeat_at = world.now
    world.now += 600
    world.feed(ScoreboardRead({}, {1: heartbeat_at}))
    world.look()
    assert [child.signals for child in (late, lost, booting, *world.stewards)] == [[], [], [], []]
    world.run_for(rules.DEADLINE_GRACE_S + 1)  # they had their chance
    assert late.signals == lost.signals == [KILL]
    assert booting.signals == []


def test_after_a_pause_a_process_that_was_told_to_quit_still_has_its_time(world: World) -> None:
    busy = world.workers[0]
    make_busy(busy)
    world.signal(QUIT)
    world.run_for(1)
    world.now += 600
    world.signal(signal.SIGCHLD)
    assert busy.signals == [QUIT]
    world.run_for(rules.QUIT_GRACE_S + 1)
    assert busy.signals == [QUIT, KILL]


def test_a_steward_without_heartbeat_is_killed_and_replaced(world: World) -> None:
    steward = world.stewards[0]
    steward.frozen = True
    world.run_for(rules.STEWARD_STALE_S - 1)
    assert steward.signals == []
    world.run_for(2)
    assert steward.signals == [KILL]
    world.run_for(rules.STEWARD_BACKOFF_S + 1)
    assert len(world.stewards) == 1
    assert world.stewards[0].pid != steward.pid


def test_a_steward_that_dies_at_once_is_not_forked_in_a_storm(world: World) -> None:
    stewards = set()
    for _ in range(1_000):
        world.now += 0.01
        for steward in world.stewards:
            stewards.add(steward.pid)
            world.end(steward, 1)
        world.look()
    assert 2 <= len(stewards) <= 10 / rules.STEWARD_BACKOFF_S + 2
