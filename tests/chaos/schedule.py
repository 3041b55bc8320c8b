"""What will go wrong, and when: made of the seed alone, before anything has started."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.chaos.hosts import HOSTS
from tests.chaos.kinds import KINDS, Kind, Lane

CALM_S = 3.0  # at the beginning, and between the last fault and healing
INTERVAL_S: Mapping[Lane, float] = {Lane.QUICK: 0.8, Lane.SLOW: 2.5}  # mean time from one to the next


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault to come. `dice` says which of the victims that there are then, from 0 to 1."""

    kind: str
    at_s: float  # since the start of the storm; later where the one before it has not ended
    host: str
    lasts_s: float
    dice: float


def schedule(seed: int, seconds: float, kinds: Sequence[Kind] = KINDS) -> list[Planned]:
    """The faults of a storm of so many seconds, in the order of their times."""
    dice = random.Random(seed)
    planned = [
        each
        for lane in Lane
        if any(kind.lane is lane for kind in kinds)
        for each in _lane(dice, seconds, [kind for kind in kinds if kind.lane is lane])
    ]
    return sorted(planned, key=lambda each: each.at_s)


def _lane(dice: random.Random, seconds: float, kinds: Sequence[Kind]) -> list[Planned]:
    planned = []
    at_s = CALM_S
    while (at_s := at_s + dice.expovariate(1 / INTERVAL_S[kinds[0].lane])) < seconds - CALM_S:
        (kind,) = dice.choices(kinds, [each.weight for each in kinds])
        lasts_s = dice.uniform(*kind.lasts_s)
        (host,) = dice.choices(list(HOSTS), [part.weight for part in HOSTS.values()])
        planned.append(Planned(kind.name, at_s, host, lasts_s, dice.random()))
        at_s += lasts_s + kind.takes_s
    return planned


def save(planned: Sequence[Planned], path: Path) -> None:
    path.write_text("".join(f"{json.dumps(asdict(each))}\n" for each in planned))
