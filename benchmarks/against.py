"""Compare this checkout with another revision of it: `python -m benchmarks.against REVISION`.

Both are measured in turn, round by round, on servers of their own, each by its own benchmarks. The median of each
line over all rounds is compared: a ratio above 1 means that this checkout does more in a second, or takes longer.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Result, Series
from benchmarks.subject.installation import CHECKOUT

MEASUREMENTS = ("drain", "pick-up", "enqueue")
ROUND_TIMEOUT_S = 900

Line = tuple[str, str, str]  # table, unit, series


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against", description=__doc__)
    parser.add_argument("revision", help="what git knows the other checkout by, such as main~5")
    parser.add_argument("measurements", nargs="*", default=list(MEASUREMENTS), metavar="MEASUREMENT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.3, help="scales all sizes [0.3]")
    options = parser.parse_args()
    values: dict[str, dict[Line, list[float]]] = {"this": defaultdict(list), "other": defaultdict(list)}
    with checkout_of(options.revision) as other:
        for number in range(options.rounds):
            # The first of a round meets a machine that has rested: each is the first in every second round.
            builds = [("other", other), ("this", CHECKOUT)]
            for name, checkout in builds if number % 2 else reversed(builds):
                print(f"round {number + 1} of {options.rounds}: {name}", file=sys.stderr, flush=True)
                for measurement in options.measurements:
                    for line, measured in _round(checkout, measurement, options.share):
                        values[name][line] += measured
    print(
        f"this checkout against {options.revision}: medians of {options.rounds} interleaved rounds (min-max)"
    )
    for line, measured in values["this"].items():
        _print(line, measured, values["other"].get(line, ()))
    return 0


@contextmanager
def checkout_of(revision: str) -> Iterator[Path]:
    """Another work tree of the repository, for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="reproq-against-") as name:
        tree = Path(name, "tree")
        git = ["git", "-C", str(CHECKOUT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), revision], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def _round(checkout: Path, measurement: str, share: float) -> Iterator[tuple[Line, Sequence[float]]]:
    """What the benchmarks of a checkout say of it, each line of ours once."""
    with tempfile.TemporaryDirectory(prefix="reproq-against-") as name:
        options = ["--rounds", "1", "--share", str(share), "--workers", "2", "--peers", "none"]
        command = [sys.executable, "-m", "benchmarks", measurement, *options, "--results", name]
        environ = {**os.environ, "PYTHONPATH": str(checkout)}
        done = subprocess.run(
            command,
            cwd=checkout,
            env=environ,
            capture_output=True,
            text=True,
            timeout=ROUND_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)} in {checkout} failed:\n{done.stderr[-2000:]}")
        result = Result.load(Path(name, f"{measurement}.json"))
    for table in result.tables:
        for series in table.series:
            if series.is_ours:
                yield (table.title, table.unit, series.name), series.values


def _print(line: Line, this: Sequence[float], other: Sequence[float]) -> None:
    title, unit, name = line
    mine, theirs = (Series(name, "", tuple(values)) for values in (this, other))
    ratio = f"{mine.median / theirs.median:5.3f}" if other else "  new"
    spreads = " against ".join(
        f"{each.median:,.4g} ({min(each.values):,.4g}-{max(each.values):,.4g})"
        for each in (mine, theirs)
        if each.values
    )
    print(f"{ratio}  {title}: {name}: {spreads} {unit}")


if __name__ == "__main__":
    sys.exit(main())
