"""Run all measurements, interleaved, on a private PostgreSQL with default durability, and print one table."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from collections import defaultdict

from benchmarks.measurements import drain_per_s, pick_up_ms, statements_per_s
from reproq_prefork import __version__
from reproq_prefork.embedded import EmbeddedPostgres
from reproq_prefork.migrate import migrate
from reproq_prefork.migration_files import known_migrations

WORKERS = (1, 2, 4)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured [%(default)s]")
    parser.add_argument("--runs", type=int, default=250, help="runs in a drain [%(default)s]")
    parser.add_argument("--pick-ups", type=int, default=60, help="runs in a pick-up round [%(default)s]")
    options = parser.parse_args()

    load = os.getloadavg()[0]  # of others: these numbers are worth what the machine had to spare
    rates: dict[str, list[float]] = defaultdict(list)
    pick_ups: list[float] = []
    # A throw-away server turns fsync off by itself; here commits are to cost what they cost.
    with EmbeddedPostgres(settings={"fsync": "on"}) as server:
        migrate(server.url, known_migrations())
        for _ in range(options.rounds):
            for workers in WORKERS:
                rates[f"no-op programs, {_count(workers, 'worker')}"].append(
                    drain_per_s(server.url, workers=workers, runs=options.runs)
                )
                rates[f"finish + claim alone, {_count(workers, 'client')}"].append(
                    statements_per_s(server.url, processes=workers, runs=5 * options.runs)
                )
            pick_ups += pick_up_ms(server.url, runs=options.pick_ups)
        print(
            f"reproq-prefork {__version__}, PostgreSQL {server.version} (fsync on), Python"
            f" {platform.python_version()}\n{os.cpu_count()} cores (load average {load:.1f} before),"
            f" {options.rounds} rounds, {len(pick_ups)} pick-ups"
        )
    print(f"\n{'tasks a second':<36}{'median':>9}{'min':>9}{'max':>9}")
    for name in sorted(rates):
        values = rates[name]
        print(f"{name:<36}{statistics.median(values):>9,.0f}{min(values):>9,.0f}{max(values):>9,.0f}")
    pick_ups.sort()
    p99 = pick_ups[min(len(pick_ups) - 1, round(len(pick_ups) * 0.99))]
    print(f"\n{'idle pick-up, ms':<36}{'p50':>9}{'p99':>9}{'max':>9}")
    print(f"{'INSERT to claim':<36}{statistics.median(pick_ups):>9.2f}{p99:>9.2f}{pick_ups[-1]:>9.2f}")
    print("\nA no-op program is `sh -c 'echo null'`: the start of its process is most of its cost.")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


if __name__ == "__main__":
    main()
