"""The fleet in worlds that nobody thought of: whatever happens, in any order, the invariants hold."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from reproq_prefork.errors import ExitStatus
from reproq_prefork.fleet import boots
from reproq_prefork.fleet import decide as rules
from reproq_prefork.fleet.events import Drained, Started
from reproq_prefork.fleet.state import RESPAWN_BURST, Phase, Reload, Role
from tests.support.examples import examples
from tests.support.fakes.fleet_world import BOOT_TIMEOUT_S, SHUTDOWN_TIMEOUT_S, Child, World

SLOTS = 8
STORM_S = 4.0
STORM_TICK_S = 0.05
MILD_SIGNALS = [signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR2, signal.SIGUSR1, signal.SIGCHLD]
STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
SETTLE_S = 2 * BOOT_TIMEOUT_S + 4 * boots.BOOT_BACKOFF_MAX_S
LONGEST_STOP_S = SHUTDOWN_TIMEOUT_S + 2 * rules.QUIT_GRACE_S + rules.FAREWELL_S + rules.STEWARD_STALE_S

alive = precondition(lambda machine: machine.world.goes_on())


class FleetMachine(RuleBasedStateMachine):
    """The world itself refuses senseless actions: see `World._act`."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(slots=SLOTS, generations=3)
        self.world.feed(Started())

    @initialize(workers=st.integers(0, 4), template=st.booleans())
    def begin(self, workers: int, template: bool) -> None:
        """0: things happen while the first check is still on its way."""
        self.world.has_template = template
        if workers:
            self.world.pass_check(workers)

    # --- time ---

    @alive
    @rule(seconds=st.sampled_from([0.02, 0.25, 1.0, 4.0]), times=st.integers(1, 12))
    def let_time_pass(self, seconds: float, times: int) -> None:
        for _ in range(times):
            if self.world.goes_on():
                self.world.tick(seconds)

    @alive
    @rule()
    def pause_the_master(self) -> None:
        self.world.tick(120.0)

    # --- people ---

    @alive
    @rule(signums=st.lists(st.sampled_from(MILD_SIGNALS), min_size=1, max_size=4))
    def send_signals(self, signums: list[int]) -> None:
        self._signal(signums)

    @alive
    @rule(
        signums=st.lists(st.sampled_from([*STOPS, signal.SIGHUP]), min_size=1, max_size=4),
        really=st.integers(0, 9),
    )
    def stop_it(self, signums: list[int], really: int) -> None:
        if really == 0:
            self._signal(signums)

    def _signal(self, signums: list[int]) -> None:
        for signum in signums:
            if self.world.goes_on():
                self.world.signal(signum)

    @alive
    @precondition(lambda machine: machine.world.is_checking())
    @rule(workers=st.integers(1, 5))
    def let_the_check_pass(self, workers: int) -> None:
        self.world.pass_check(workers)

    @alive
    @precondition(lambda machine: machine.world.is_checking() and machine.world.fleet.generations)
    @rule()
    def let_the_check_fail(self) -> None:
        self.world.fail_check()

    @alive
    @rule(workers=st.integers(1, 4))
    def reload(self, workers: int) -> None:
        self.world.signal(signal.SIGHUP)
        if self.world.is_checking():
            self.world.pass_check(workers)

    # --- children ---

    @alive
    @rule(which=st.integers(0, 20), status=st.sampled_from([0, 1, -9, -11, ExitStatus.LEASE_LOST]))
    def end_a_child(self, which: int, status: int) -> None:
        child = self._child(which)
        if child is not None:
            self.world.end(child, status)

    @alive
    @rule(which=st.integers(0, 20), torn=st.booleans())
    def end_a_busy_worker(self, which: int, torn: bool) -> None:
        child = self._child(which)
        if child is not None and child.slot is not None:
            child.started = (which, 1)
            self.world.end(child, -signal.SIGKILL, torn=torn)

    @alive
    @rule(which=st.integers(0, 20))
    def end_a_worker_in_order(self, which: int) -> None:
        child = self._child(which)
        if child is not None and child.slot is not None and not child.booting:
            self.world.end(child, 0, in_order=True)

    @alive
    @rule(which=st.integers(0, 20), deadline=st.none() | st.floats(0, 20), lease=st.none() | st.floats(0, 20))
    def give_a_worker_a_task(self, which: int, deadline: float | None, lease: float | None) -> None:
        child = self._child(which)
        if child is not None and child.slot is not None and child.registered:
            child.obeys = False
            child.started = (which, 1)
            child.deadline_at = None if deadline is None else self.world.now + deadline
            child.lease_ends_at = None if lease is None else self.world.now + lease

    @alive
    @rule(which=st.integers(0, 20))
    def freeze_a_steward(self, which: int) -> None:
        child = self._child(which)
        if child is not None and child.role is Role.STEWARD:
            child.frozen = True

    @alive
    @rule(busy=st.booleans(), status=st.sampled_from([1, -9, ExitStatus.LEASE_LOST]))
    def everyone_dies_all_the_time(self, busy: bool, status: int) -> None:
        """However fast workers die, forks are bounded."""
        world = self.world
        forks = len(world.fork_times)
        for _ in range(int(STORM_S / STORM_TICK_S)):
            for worker in world.workers:
                worker.started = (1, 1) if busy else None
                world.end(worker, status)
            if world.goes_on():
                world.tick(STORM_TICK_S)
        generations = len(world.fleet.generations) + 1
        most = RESPAWN_BURST + STORM_S * boots.RESPAWNS_A_SECOND + SLOTS
        assert len(world.fork_times) - forks <= generations * most

    @alive
    @rule(seconds=st.integers(1, 8))
    def the_newest_workers_cannot_boot(self, seconds: int) -> None:
        world = self.world
        for _ in range(4 * seconds):
            for worker in world.workers_of(world.fleet.generations_made):
                if worker.booting:
                    world.end(worker, 1)
            if world.goes_on():
                world.tick()

    def _child(self, which: int) -> Child | None:
        children = sorted(self.world.children.values(), key=lambda child: child.pid)
        return children[which % len(children)] if children else None

    # --- the world ---

    @alive
    @rule(boot=st.booleans(), obey=st.booleans())
    def change_how_workers_are(self, boot: bool, obey: bool) -> None:
        self.world.workers_boot = boot
        self.world.workers_obey = obey

    @alive
    @rule(connect=st.booleans(), which=st.integers(0, 20))
    def change_who_finds_a_connection(self, connect: bool, which: int) -> None:
        self.world.workers_connect = connect
        child = self._child(which)
        if child is not None:
            child.connects = True

    @alive
    @rule(fail=st.booleans())
    def change_how_forks_go(self, fail: bool) -> None:
        self.world.forks_fail = fail

    @alive
    @rule(orphans_die=st.booleans(), database=st.booleans(), frozen=st.booleans())
    def change_the_rest(self, orphans_die: bool, database: bool, frozen: bool) -> None:
        self.world.orphans_die = orphans_die
        self.world.database_is_up = database
        self.world.stewards_are_frozen = frozen

    @alive
    @rule(template=st.booleans(), load=st.booleans(), answer=st.booleans(), fit=st.integers(0, 3))
    def change_how_templates_are(self, template: bool, load: bool, answer: bool, fit: int) -> None:
        self.world.has_template = template
        self.world.templates_load = load
        self.world.templates_answer = answer
        self.world.applications_are_fit = fit > 0

    @alive
    @rule(which=st.integers(0, 3), answers=st.booleans())
    def stop_or_continue_a_template(self, which: int, answers: bool) -> None:
        templates = self.world.templates
        if templates:
            templates[which % len(templates)].answers = answers

    @alive
    @rule(which=st.integers(0, 3))
    def kill_a_template(self, which: int) -> None:
        templates = self.world.templates
        if templates:
            self.world.kill(templates[which % len(templates)])

    @alive
    @rule(generation=st.integers(1, 4), really=st.integers(0, 19))
    def drain_the_queues(self, generation: int, really: int) -> None:
        if really == 0 and generation in self.world.fleet.generations:
            self.world.feed(Drained(generation))

    @precondition(lambda machine: not machine.world.goes_on())
    @rule()
    def rest(self) -> None:
        """It has ended; nothing can happen any more."""

    # --- what always holds ---

    @invariant()
    def the_fleet_knows_its_children(self) -> None:
        fleet, world = self.world.fleet, self.world
        assert {(w.slot, w.pid, w.incarnation) for w in fleet.workers.values() if w.pid} == {
            (child.slot, child.pid, child.incarnation) for child in world.workers
        }
        assert {(w.slot, w.incarnation) for w in fleet.workers.values() if not w.pid} == {
            (asked.slot, asked.incarnation) for template in world.templates for asked in template.asked_for
        }
        templates = {
            (n, g.template.pid) for n, g in fleet.generations.items() if g.template and g.template.pid
        }
        assert templates == {(child.generation, child.pid) for child in world.templates}
        stewards = {(number, g.steward.pid) for number, g in fleet.generations.items() if g.steward.pid}
        assert stewards == {(child.generation, child.pid) for child in world.stewards}

    @invariant()
    def there_are_never_more_workers_than_slots(self) -> None:
        assert len(self.world.workers) <= SLOTS

    @invariant()
    def nobody_who_died_is_forgotten(self) -> None:
        world = self.world
        waiting = {
            lost.worker_id
            for g in world.fleet.generations.values()
            for lost in (*g.lost_with_orphans, *g.lost)
        }
        forgotten = world.died - world.reset - waiting
        assert not forgotten or world.logged("wait for the end of their leases"), forgotten

    @invariant()
    def a_reload_is_never_stuck_between_its_steps(self) -> None:
        fleet = self.world.fleet
        assert (fleet.reload is not Reload.CHECKING) or fleet.checking
        assert fleet.checking == self.world.checking
        if fleet.reload is Reload.STARTING:
            assert not fleet.generations[max(fleet.generations)].draining

    @invariant()
    def somebody_stays_while_the_fleet_runs(self) -> None:
        if self.world.phase() is Phase.RUNNING and self.world.fleet.generations:
            assert self.world.fleet.current is not None

    # --- and in the end ---

    def teardown(self) -> None:
        world = self.world
        self._become_kind()
        self._settle()
        fleet = world.fleet
        if world.phase() is Phase.RUNNING and fleet.generations:
            assert fleet.reload is Reload.NONE
            assert fleet.current is not None
            staying = [w for w in fleet.workers_of(fleet.current.number) if not w.told]
            assert len(staying) == fleet.current.target, "the number of workers converges"
            assert all(worker.ready for worker in staying)
            assert world.died == world.reset or world.logged("wait for the end of their leases")
        stubborn = world.workers[:1]
        for worker in stubborn:
            worker.obeys = False
        if world.goes_on():
            world.signal(signal.SIGTERM)
            end = world.now + LONGEST_STOP_S
            while world.now < end and world.goes_on():
                world.tick(1.0)
        assert not world.goes_on(), "a stop always ends"
        assert world.children == {}

    def _become_kind(self) -> None:
        world = self.world
        world.workers_boot = world.workers_obey = world.workers_connect = True
        world.orphans_die = world.database_is_up = True
        world.templates_load = world.templates_answer = world.applications_are_fit = True
        world.forks_fail = world.stewards_are_frozen = False
        for child in world.children.values():
            child.boots = child.obeys = child.loads = child.answers = child.connects = True

    def _settle(self) -> None:
        world = self.world
        end = world.now + SETTLE_S
        while world.now < end and world.goes_on():
            if world.is_checking():
                world.pass_check(2)
                end = world.now + SETTLE_S
            world.tick(1.0)


TestFleet = FleetMachine.TestCase
TestFleet.settings = settings(
    max_examples=examples(200),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
