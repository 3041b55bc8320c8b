"""Rounds: everything that is compared runs once a round, one after the other, so all meet the same machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.figures import Series


@dataclass(frozen=True)
class Contender:
    """Something that is measured. `measure` gives the values of one round, and may raise."""

    name: str
    configuration: str
    measure: Callable[[], Sequence[float]]
    is_ours: bool = False


def interleaved(contenders: Sequence[Contender], rounds: int) -> tuple[Series, ...]:
    """Measure each once a round. One that fails is left out of further rounds, and says why."""
    values: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    failures: dict[str, str] = {}
    for number in range(rounds):
        for contender in contenders:
            if contender.name in failures:
                continue
            began = time.monotonic()
            try:
                measured = contender.measure()
            except Exception as error:
                # A peer that cannot be run on this machine does not spoil the rest.
                failures[contender.name] = " ".join(str(error).split())[:300] or type(error).__name__
                _say(f"{contender.name}: {failures[contender.name]}")
                continue
            values[contender.name] += measured
            _say(
                f"round {number + 1} of {rounds}, {contender.name}: {_shown(measured)}"
                f" ({time.monotonic() - began:.1f} s)"
            )
    return tuple(
        Series(
            contender.name,
            contender.configuration,
            tuple(values[contender.name]),
            contender.is_ours,
            failures.get(contender.name, ""),
        )
        for contender in contenders
    )


def _shown(values: Sequence[float]) -> str:
    return ", ".join(f"{value:,.4g}" for value in values[:3]) + (" ..." if len(values) > 3 else "")


def _say(line: str) -> None:
    sys.stderr.write(f"  {line}\n")
    sys.stderr.flush()
