"""The rules about templates: one process of a generation imports the application, and forks the workers."""

from __future__ import annotations

import signal

import pytest

from reproq_prefork.errors import ExitStatus
from reproq_prefork.fleet import boots
from reproq_prefork.fleet import template as templates
from reproq_prefork.fleet.actions import ForkWorker, RequestWorker
from reproq_prefork.fleet.events import Started
from reproq_prefork.fleet.state import Phase
from tests.support.fakes.fleet_world import BOOT_TIMEOUT_S, Child, World

TERM, QUIT, KILL = signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL


def a_world() -> World:
    world = World(slots=12)
    world.has_template = True
    return world


@pytest.fixture
def world() -> World:
    """A template, and three workers that are ready."""
    world = a_world()
    world.start(3)
    return world


def reload(world: World, workers: int = 3) -> None:
    world.signal(signal.SIGHUP)
    world.pass_check(workers)


def the_template(world: World) -> Child:
    (template,) = world.templates
    return template


# --- the start ---


def test_the_template_is_asked_for_workers_after_it_has_loaded_the_application() -> None:
    world = a_world()
    world.templates_load = False
    world.feed(Started())
    world.pass_check(3)
    world.run_for(5)
    assert (len(world.templates), len(world.stewards), len(world.workers)) == (1, 1, 0)
    the_template(world).loads = True
    world.run_for(1)
    assert len(world.workers) == 3
    assert (world.count(RequestWorker), world.count(ForkWorker)) == (3, 0)
    assert world.told_systemd == ["READY=1"]


def test_external_programs_need_no_template() -> None:
    world = World()
    world.start(3)
    assert world.templates == []
    assert (world.count(RequestWorker), world.count(ForkWorker)) == (0, 3)


def fail_templates(world: World, seconds: float) -> None:
    end = world.now + seconds
    while world.now < end and world.goes_on():
        world.now += 0.05
        for template in world.templates:
            world.end(template, 2)
        world.look()
    world.run_for(1)


def test_an_application_that_cannot_be_imported_ends_the_start_after_three_attempts() -> None:
    world = a_world()
    world.templates_load = False
    world.feed(Started())
    world.pass_check(3)
    fail_templates(world, 20)
    assert world.exit_status is ExitStatus.BOOT_FAILED
    assert len(world.template_fork_times) == boots.BOOT_FAILURE_LIMIT
    assert world.logged("giving up: the template ended before it was ready: status 2")


def test_an_import_that_hangs_is_ended_at_the_boot_deadline() -> None:
    world = a_world()
    world.templates_load = False
    world.feed(Started())
    world.pass_check(3)
    template = the_template(world)
    world.run_for(BOOT_TIMEOUT_S - 1)
    assert template.signals == []
    world.run_for(3 * BOOT_TIMEOUT_S + 20)
    assert world.exit_status is ExitStatus.BOOT_FAILED
    assert len(world.template_fork_times) == boots.BOOT_FAILURE_LIMIT


def test_a_template_that_cannot_be_forked_is_tried_again_after_a_while() -> None:
    world = a_world()
    world.forks_fail = True
    world.feed(Started())
    world.pass_check(3)
    world.run_for(10)
    assert 1 < len(world.template_fork_times) <= 1 + 10 / boots.FORK_RETRY_S
    world.forks_fail = False
    world.run_for(2 * boots.FORK_RETRY_S)
    assert len(world.workers) == 3


def test_a_worker_that_the_template_could_not_fork_is_asked_for_again_after_a_while(world: World) -> None:
    world.forks_fail = True
    world.kill(world.workers[0])
    requests = world.count(RequestWorker)
    world.run_for(10)
    assert world.count(RequestWorker) - requests <= 10 / boots.FORK_RETRY_S
    world.forks_fail = False
    world.run_for(2 * boots.FORK_RETRY_S)
    assert len(world.workers) == 3


@pytest.mark.parametrize("signum", [TERM, QUIT])
def test_a_stop_while_the_application_is_imported_ends_at_once(signum: int) -> None:
    world = a_world()
    world.templates_load = False
    world.feed(Started())
    world.pass_check(3)
    template = the_template(world)
    world.signal(signum)
    assert template.signals == [KILL]
    world.run_for(1)
    assert world.exit_status is ExitStatus.OK


@pytest.mark.parametrize("signum", [TERM, QUIT])
def test_a_stop_does_not_wait_for_workers_that_the_template_has_not_forked_yet(
    world: World, signum: int
) -> None:
    the_template(world).answers = False
    world.kill(world.workers[0])
    world.signal(signum)
    world.run_for(2)
    assert world.exit_status is ExitStatus.OK


# --- an application that does not survive a fork ---


def test_if_the_application_does_not_survive_a_fork_each_worker_imports_it() -> None:
    world = a_world()
    world.applications_are_fit = False
    world.start(3)
    assert world.logged("each worker imports the application for itself: threads")
    assert world.templates == []
    assert (world.count(RequestWorker), world.count(ForkWorker)) == (0, 3)
    assert world.told_systemd == ["READY=1"]
    world.kill(world.workers[0])
    world.run_for(1)
    assert (len(world.workers), len(world.template_fork_times)) == (3, 1)


def test_the_next_generation_tries_a_template_again() -> None:
    world = a_world()
    world.applications_are_fit = False
    world.start(3)
    world.applications_are_fit = True
    reload(world)
    world.run_for(2)
    assert the_template(world).generation == 2
    assert world.count(RequestWorker) == 3


# --- its death, and its silence ---


def test_a_dead_template_is_replaced_and_its_workers_live_on(world: World) -> None:
    before, template = world.workers, the_template(world)
    world.kill(template)
    world.run_for(2)
    assert world.workers == before
    assert all(worker.signals == [] for worker in before)
    assert the_template(world).pid != template.pid
    assert world.told_systemd == ["READY=1"]


def test_a_worker_that_dies_while_there_is_no_template_is_replaced_once_there_is(world: World) -> None:
    world.templates_load = False
    world.kill(the_template(world))
    world.kill(world.workers[0])
    world.run_for(5)
    assert len(world.workers) == 2
    the_template(world).loads = True
    world.run_for(1)
    assert len(world.workers) == 3
    assert world.reset == set(world.lost)


def test_the_next_template_is_asked_for_the_workers_that_a_dead_one_did_not_fork(world: World) -> None:
    the_template(world).answers = False
    for worker in world.workers[:2]:
        world.kill(worker)
    assert len(the_template(world).asked_for) == 2
    world.kill(the_template(world))
    world.run_for(3)
    assert len(world.workers) == 3


def test_processes_left_by_a_dead_template_are_killed_too(world: World) -> None:
    world.orphans_die = False
    world.kill(the_template(world))
    assert world.fleet.awaits_orphans
    world.orphans_die = True
    world.tick()
    assert not world.fleet.awaits_orphans


def test_processes_left_by_a_dead_template_delay_a_stop_no_longer_than_dead_workers_do(world: World) -> None:
    world.orphans_die = False
    world.signal(TERM)
    world.run_for(2)
    assert world.goes_on()
    world.run_for(10)
    assert world.exit_status is ExitStatus.OK


def test_a_template_that_does_not_fork_what_it_is_asked_for_is_replaced(world: World) -> None:
    silent = the_template(world)
    silent.answers = False
    world.run_for(100)
    assert silent.signals == [], "nothing was asked of it"
    world.kill(world.workers[0])
    world.run_for(templates.ANSWER_TIMEOUT_S - 1)
    assert silent.signals == []
    others = [worker.pid for worker in world.workers]
    world.run_for(4)
    assert silent.pid not in world.children
    assert len(world.workers) == 3
    assert set(others) < {worker.pid for worker in world.workers}


def test_a_template_that_is_slow_but_shows_life_is_not_replaced() -> None:
    world = World(slots=80)
    world.has_template = True
    world.templates_answer = False
    world.feed(Started())
    world.pass_check(30)
    world.tick()
    slow = the_template(world)
    for _ in range(30):
        world.run_for(templates.ANSWER_TIMEOUT_S / 2)
        world.answer(slow)
    assert slow.signals == []
    assert len(world.workers) == 30


def test_the_template_is_not_blamed_for_a_pause_of_the_master(world: World) -> None:
    template = the_template(world)
    template.answers = False
    world.kill(world.workers[0])
    world.now += 600
    world.look()
    assert template.signals == []
    world.run_for(templates.ANSWER_TIMEOUT_S + 1)
    assert template.signals == [KILL]


def test_a_template_that_dies_whenever_it_is_asked_backs_off_and_never_ends_the_fleet(world: World) -> None:
    world.templates_answer = False
    the_template(world).answers = False
    world.kill(world.workers[0])
    before = len(world.template_fork_times)
    lasts_s = 1_200
    end = world.now + lasts_s
    while world.now < end:
        world.tick()
        for template in world.templates:
            if template.asked_for:
                world.kill(template)
    assert world.goes_on()
    assert len(world.template_fork_times) - before < 10 + lasts_s / boots.BOOT_BACKOFF_MAX_S
    world.templates_answer = True
    world.run_for(2 * boots.BOOT_BACKOFF_MAX_S)
    assert len(world.workers) == 3


def test_a_template_that_dies_now_and_then_is_replaced_soon(world: World) -> None:
    for _ in range(20):
        world.run_for(2 * boots.BOOT_BACKOFF_MAX_S)
        world.kill(the_template(world))
        world.run_for(2 * boots.BOOT_BACKOFF_BASE_S)
        assert len(world.templates) == 1


# --- reload, and how many ---


def test_a_reload_has_its_own_template_and_the_old_one_ends_with_its_generation(world: World) -> None:
    old = the_template(world)
    busy = world.workers[0]
    busy.obeys = False
    world.templates_load = False
    reload(world)
    world.run_for(5)
    assert old.signals == [], "until the new workers are ready, the old ones are replaced if they die"
    (new,) = [template for template in world.templates if template is not old]
    new.loads = True
    world.run_for(2)
    assert old.pid not in world.children
    assert the_template(world) is new
    assert busy.signals == [TERM]
    assert world.workers_of(1) == [busy]


def test_a_reload_whose_application_cannot_be_imported_is_rolled_back(world: World) -> None:
    before = world.workers
    world.templates_load = False
    reload(world)
    end = world.now + 20
    while world.now < end:
        world.tick()
        for template in world.templates:
            if template.generation == 2:
                world.end(template, 2)
    assert world.logged("rolled back, the old workers stay: the template ended before it was ready")
    assert world.workers == before
    assert all(worker.signals == [] for worker in before)
    assert the_template(world).generation == 1
    assert set(world.fleet.generations) == {1}


def test_ttin_and_ttou_work_with_a_template(world: World) -> None:
    world.signal(signal.SIGTTIN)
    world.tick()
    assert len(world.workers) == 4
    the_template(world).answers = False
    world.signal(signal.SIGTTIN, signal.SIGTTOU)
    world.run_for(1)
    (asked_for,) = the_template(world).asked_for
    the_template(world).answers = True
    world.tick()
    (surplus,) = [worker for worker in world.workers if worker.slot == asked_for.slot]
    assert surplus.signals == [TERM], "it is no longer wanted when it comes"
    world.run_for(1)
    assert len(world.workers) == 4


def test_a_recycled_worker_comes_from_the_template(world: World) -> None:
    requests = world.count(RequestWorker)
    world.end(world.workers[0], 0, in_order=True)
    world.run_for(1)
    assert len(world.workers) == 3
    assert world.count(RequestWorker) == requests + 1


def test_no_template_is_forked_in_a_drain(world: World) -> None:
    world.workers[0].obeys = False
    world.kill(the_template(world))
    world.signal(TERM)
    world.run_for(5)
    assert world.phase() is Phase.DRAINING
    assert world.templates == []
