"""Give the parsers made-up bytes for a while; `make fuzz` calls `python -m tests.fuzz [--seed N] [--seconds S]`.

A failure is told with the smallest input that was found for it, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

DEFAULT_SECONDS = 60.0
ROUND = 500  # inputs; after each it is seen whether there is time for another


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description="Give the parsers made-up bytes.")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of what is made up")
    parser.add_argument(
        "--seconds", type=float, default=DEFAULT_SECONDS, help="for all of them together (60)"
    )
    given_arguments = parser.parse_args()
    print(f"seed {given_arguments.seed}", flush=True)
    failed = False
    for name, (target, strategy) in TARGETS.items():
        seconds = given_arguments.seconds / len(TARGETS)
        try:
            inputs = _fuzz(target, strategy, given_arguments.seed, seconds)
        except Exception:
            failed = True
            print(f"{name}: FAILED")
            traceback.print_exc()
        else:
            print(f"{name}: {inputs:,} inputs", flush=True)
    return 1 if failed else 0


def _fuzz(
    target: Callable[..., None], strategy: st.SearchStrategy[object], first: int, seconds: float
) -> int:
    """How many inputs it took. Raises what the target raises, for the smallest input that was found."""
    ends_at = time.monotonic() + seconds
    inputs = 0

    def count(value: object) -> None:
        nonlocal inputs
        inputs += 1
        target(value)

    for number in range(first, sys.maxsize):
        if time.monotonic() >= ends_at:
            break
        a_round = settings(
            max_examples=ROUND,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            print_blob=False,
        )
        seed(number)(a_round(given(strategy)(count)))()
    return inputs


if __name__ == "__main__":
    sys.exit(main())
