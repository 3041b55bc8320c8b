"""What became of good tasks beside odd rows, in words for a table. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LOOP = 5  # so many restarts, with one of them in the last quarter of the time, are a loop


@dataclass(frozen=True, slots=True)
class Outcome:
    what: str  # the odd rows
    good: int
    done: int  # of the good ones
    restarts_s: tuple[
        float, ...
    ]  # when a process of the workers that had ended was started again, since the odd rows
    window_s: float  # how long that was looked at
    fates: Mapping[str, int]  # of the odd rows

    @property
    def is_loop(self) -> bool:
        last_quarter_s = self.window_s * 0.75
        return len(self.restarts_s) >= LOOP and max(self.restarts_s) >= last_quarter_s

    @property
    def sentence(self) -> str:
        parts = [f"{self.done} of {self.good} done"]
        if self.is_loop:
            parts.append(
                f"workers end and are restarted in a loop ({len(self.restarts_s)} times in {self.window_s:.0f} s)"
            )
        elif self.restarts_s:
            parts.append(f"workers were restarted {_times(len(self.restarts_s))}")
        elif self.done < self.good:
            parts.append("no worker ended")
        fates = sorted(self.fates.items(), key=lambda fate: (-fate[1], fate[0]))
        if len(fates) == 1:
            parts.append(f"the {fates[0][1]} {fates[0][0]}")
        else:
            parts.append("of the odd ones " + ", ".join(f"{count} {fate}" for fate, count in fates))
        return "; ".join(parts)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """The one with the fewest good tasks done, then with the most restarts, then with the fewest rows refused.

    Of equals the one that was tried first.
    """
    return min(
        outcomes,
        key=lambda outcome: (outcome.done, -len(outcome.restarts_s), outcome.fates.get("refused", 0)),
    )


def tables(outcomes: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """The worst for each contestant, and then all that was tried."""
    lines = ["| | a row that nobody can read | the odd row, the worst of those tried |", "|---|---|---|"]
    for name, of_one in outcomes.items():
        chosen = worst(of_one)
        lines.append(f"| **{name}** | {chosen.sentence} | {chosen.what} |")
    lines += ["", "All that was tried:", "", "| | the odd row | what came of it |", "|---|---|---|"]
    lines += [
        f"| {name} | {each.what} | {each.sentence} |" for name, of_one in outcomes.items() for each in of_one
    ]
    return lines
