"""What the producers of a storm enqueue, drawn by the seed.

Most is cheap, so that there are a million runs of it; of everything else there is some at any moment.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from reproq_prefork import NewRun, Spec
from tests.chaos import bodies

SITE = "tests.chaos.django_site.tasks"
PROGRAMS_QUEUE, SITE_QUEUE = "programs", "site"
KEYS = 12
MAX_WITH_KEYS = 6  # in one batch
RETRY_AFTER_S = (0.2, 3.0)
PATIENT_S = 15.0  # long enough for whoever is to cancel it
URGENT = 50

Draw = Callable[[random.Random, int], NewRun]


def external(number: int, doing: str, *, max_attempts: int = bodies.MANY_ATTEMPTS, **rest: float) -> NewRun:
    payload = {"number": number, "doing": doing, **rest}
    return NewRun.of(payload, queue_name=PROGRAMS_QUEUE, max_attempts=max_attempts)


def on_site(
    name: str,
    number: int,
    *args: Any,
    executor: str = "inline",
    max_attempts: int = bodies.MANY_ATTEMPTS,
    priority: int = 0,
    **kwargs: Any,
) -> NewRun:
    """A task of the Django site, as its backend would enqueue it. What leaves a note is atomic."""
    return NewRun.of(
        Spec.python_task(f"{SITE}.{name}", [number, *args], kwargs),
        queue_name=SITE_QUEUE,
        max_attempts=max_attempts,
        executor=executor,
        atomic=name.startswith("note"),
        priority=priority,
    )


def _either(dice: random.Random) -> str:
    return dice.choice(("inline", "fork"))


def _patient(dice: random.Random, number: int) -> NewRun:
    priority = dice.choice((0, URGENT))  # so that some run by the time they are cancelled, and others wait
    match dice.randrange(4):
        case 0:
            return external(number, "patient", seconds=PATIENT_S)
        case 1:
            return on_site("patient", number, PATIENT_S, executor=_either(dice), priority=priority)
        case 2:
            return on_site(
                "note_and_be_patient", number, PATIENT_S, executor=_either(dice), priority=priority
            )
        case _:
            patient = bodies.patient.using(executor=_either(dice), priority=priority)
            return patient.new_run(number, PATIENT_S)


def _later(dice: random.Random, number: int) -> NewRun:
    after_s = dice.uniform(*RETRY_AFTER_S)
    match dice.randrange(4):
        case 0:
            return external(number, "later", after_s=after_s)
        case 1:
            return on_site("later", number, executor=_either(dice), after_s=after_s)
        case 2:
            return on_site("note_and_ask_later", number, executor=_either(dice), after_s=after_s)
        case _:
            return bodies.later.using(executor=_either(dice)).new_run(number, after_s=after_s)


def _hoarding(dice: random.Random, number: int) -> NewRun:
    match dice.randrange(3):
        case 0:
            return external(number, "hoard", max_attempts=2)
        case 1:
            return on_site("hoarding", number, executor="fork", max_attempts=2)
        case _:
            return bodies.hoarding.new_run(number)


def _noted(dice: random.Random, number: int) -> NewRun:
    executor = _either(dice)
    match dice.randrange(8):
        case 0:
            return on_site("note_and_fail", number, executor=executor)
        case 1:
            return on_site("note_and_spoil", number, executor=executor, max_attempts=2)
        case _:
            return on_site("note_and_work", number, dice.uniform(0.0, 0.2), executor=executor)


# How often each is drawn, of ten thousand.
MIX: tuple[tuple[int, Draw], ...] = (
    (9_667, lambda _dice, number: bodies.nothing.new_run(number)),
    (20, lambda _dice, number: bodies.nothing.using(executor="fork").new_run(number)),
    (80, lambda dice, number: bodies.short.new_run(number, dice.uniform(0.001, 0.03))),
    (40, lambda dice, number: bodies.long.new_run(number, dice.uniform(0.02, 0.4))),
    (20, lambda dice, number: bodies.once.new_run(number, dice.uniform(0.02, 0.2))),
    (15, lambda dice, number: bodies.nested.new_run(number, dice.uniform(0.05, 0.4))),
    (20, lambda dice, number: bodies.failing.using(executor=_either(dice)).new_run(number)),
    (5, lambda _dice, number: bodies.overrunning.new_run(number)),
    (20, lambda dice, number: external(number, "work", seconds=dice.uniform(0.02, 0.3))),
    (5, lambda dice, number: external(number, "nested", seconds=dice.uniform(0.05, 0.4))),
    (40, lambda _dice, number: on_site("nothing", number)),
    (10, lambda dice, number: on_site("work", number, dice.uniform(0.0, 0.2), executor=_either(dice))),
    (5, lambda dice, number: on_site("failing", number, executor=_either(dice))),
    (30, _noted),
    (10, _later),
    (8, _hoarding),
    (5, _patient),
)
_DRAWS = [draw for _, draw in MIX]
_WEIGHTS = [weight for weight, _ in MIX]


def is_to_be_cancelled(new: NewRun) -> bool:
    return "patient" in new.spec.canonical


def draw(dice: random.Random, first: int, count: int) -> list[NewRun]:
    """So many runs, whose numbers are `first` and those after it."""
    draws = dice.choices(_DRAWS, _WEIGHTS, k=count)
    return [each(dice, first + place) for place, each in enumerate(draws)]


def draw_with_keys(dice: random.Random, first: int) -> list[NewRun]:
    """Some runs with unique keys that other producers use as well, and so may this batch, twice."""
    count = dice.randint(1, MAX_WITH_KEYS)
    return [_with_key(dice, first + place) for place in range(count)]


def _with_key(dice: random.Random, number: int) -> NewRun:
    if dice.randrange(4):
        new = bodies.short.new_run(number, dice.uniform(0.0, 0.2))
    else:
        new = on_site("note_and_work", number, dice.uniform(0.0, 0.2), executor=_either(dice))
    return replace(new, unique_key=f"key-{dice.randrange(KEYS)}", priority=dice.choice((0, URGENT)))
