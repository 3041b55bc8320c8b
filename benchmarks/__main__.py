"""Measure, and write what was found: `python -m benchmarks --help`."""

from __future__ import annotations

import argparse
import dataclasses
import platform
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.bench import QUICK, Bench, Sizes
from benchmarks.figures import Result
from benchmarks.machine import machine, revision
from benchmarks.measure import cost, drain, enqueue, pick_up, recovery, scale
from benchmarks.peers.catalogue import PEERS, named
from benchmarks.report import page
from benchmarks.servers import postgres, redis_version
from benchmarks.subject.installation import CHECKOUT
from reproq_prefork import __version__
from reproq_prefork.demo.postgres import EmbeddedPostgres

MEASURES = {module.NAME: module.tables for module in (drain, pick_up, enqueue, scale, cost, recovery)}
QUICK_MEASUREMENTS = (drain.NAME, pick_up.NAME, enqueue.NAME)
RESULTS = CHECKOUT / "benchmarks" / "results"
ENVIRONMENTS = CHECKOUT / ".venv-peers"
DOCUMENTATION = CHECKOUT / "docs" / "performance.md"
REPORT = "report"


def main() -> None:
    options = _parsed(sys.argv[1:])
    if options.measurements == [REPORT]:
        page.write(options.results, DOCUMENTATION)
        return
    found = [result for name in options.measurements if (result := _measured(name, options)) is not None]
    print(page.plain(found))
    if not options.quick:
        page.write(options.results, DOCUMENTATION if options.results == RESULTS else None)


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "measurements",
        nargs="*",
        metavar="MEASUREMENT",
        help=f"{', '.join(MEASURES)}, or {REPORT}: make page and plots of the results that are there [all]",
    )
    parser.add_argument("--peers", metavar="NAMES", help="a comma list, all or none [all; none with --quick]")
    parser.add_argument("--rounds", type=int, help="how often each is measured [5; 3 with --quick]")
    parser.add_argument("--workers", metavar="COUNTS", help="of our drains [1,2,4,8; 1,2,4 with --quick]")
    parser.add_argument("--runs", type=int, help="tasks in our inline drains [50000; 10000 with --quick]")
    parser.add_argument("--share", type=float, default=1.0, help="scales all other sizes [1]")
    parser.add_argument(
        "--quick", action="store_true", help="small, without peers; prints, and writes no file"
    )
    parser.add_argument("--resume", action="store_true", help="keep results of this commit that are there")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where they are written")
    options = parser.parse_args(arguments)
    options.measurements = options.measurements or list(QUICK_MEASUREMENTS if options.quick else MEASURES)
    unknown = set(options.measurements) - {*MEASURES, REPORT}
    if unknown:
        parser.error(f"there is no measurement {', '.join(sorted(unknown))}")
    options.rounds = options.rounds or (3 if options.quick else 5)
    peers = options.peers or ("none" if options.quick else "all")
    options.peers = {"all": tuple(peer.name for peer in PEERS), "none": ()}.get(
        peers, tuple(peers.split(","))
    )
    try:
        named(options.peers)
    except KeyError as error:
        parser.error(
            f"there is no peer {error.args[0]}; there are {', '.join(sorted({peer.module for peer in PEERS}))}"
        )
    options.sizes = _sizes(options)
    return options


def _sizes(options: argparse.Namespace) -> Sizes:
    sizes = (QUICK if options.quick else Sizes()).scaled(options.share)
    if options.workers:
        sizes = dataclasses.replace(sizes, workers=tuple(map(int, options.workers.split(","))))
    if options.runs:
        sizes = dataclasses.replace(sizes, inline_runs=options.runs)
    return sizes


def _measured(name: str, options: argparse.Namespace) -> Result | None:
    """None: `--resume` was given, and it is there."""
    commit = revision(CHECKOUT)
    path = options.results / f"{name}.json"
    if options.resume and path.exists() and Result.load(path).versions.get("commit") == commit:
        sys.stderr.write(f"{name}: there is a result of this commit\n")
        return None
    sys.stderr.write(f"{name}:\n")
    place, began = machine(), time.monotonic()
    # Below /tmp, since a server that runs as another account has to reach it.
    with postgres() as server, tempfile.TemporaryDirectory(prefix="reproq-bench-") as scratch:
        bench = Bench(server, Path(scratch), ENVIRONMENTS, options.rounds, options.sizes, options.peers)
        result = Result(
            measurement=name,
            taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
            rounds=options.rounds,
            machine=place,
            versions=_versions(server, commit),
            tables=MEASURES[name](bench),
        )
    sys.stderr.write(f"{name}: {time.monotonic() - began:.0f} s\n")
    if not options.quick:
        result.save(options.results)
    return result


def _versions(server: EmbeddedPostgres, commit: str) -> Mapping[str, str]:
    return {
        "reproq-prefork": __version__,
        "commit": commit,
        "Python": platform.python_version(),
        "PostgreSQL": server.version,
        "Redis": redis_version() or "not installed",
    }


if __name__ == "__main__":
    main()
