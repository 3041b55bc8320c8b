"""The kill storm: `python -m tests.chaos [--seed N] [--minutes M] [--report DIRECTORY]`; `make chaos` calls it.

The exit status is 0 if the history of the storm is as it must be, and 1 if a rule was broken.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos import report
from tests.chaos.checker import violations
from tests.chaos.hosts import containers
from tests.chaos.schedule import save, schedule
from tests.chaos.storm import storm

DEFAULT_MINUTES = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make chaos", description="A kill storm, and a checker of its history."
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of what is to go wrong")
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES, help="how long things go wrong (1)")
    parser.add_argument(
        "--report", type=Path, default=Path("build/chaos"), help="where to write (build/chaos)"
    )
    given = parser.parse_args()

    given.report.mkdir(parents=True, exist_ok=True)
    planned = schedule(given.seed, given.minutes * 60)
    save(planned, given.report / "schedule.jsonl")
    print(f"seed {given.seed}: {len(planned)} faults in {given.minutes:g} minutes", flush=True)
    print(containers(), flush=True)
    with tempfile.TemporaryDirectory(prefix="reproq-chaos-") as directory:
        started = time.monotonic()
        history = storm(planned, given.seed, Path(directory))
        print(f"over after {time.monotonic() - started:.0f} s; checking", flush=True)
        found = violations(history)
        for log in Path(directory).glob("host-*.log"):
            (given.report / log.name).write_bytes(log.read_bytes())
    page = report.page(history, found, seed=given.seed, minutes=given.minutes)
    (given.report / "report.md").write_text(page)
    report.plot(history, given.report / "storm.png")
    print(page)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
