"""The same kills, or the same sorts of odd rows, for us and for peers: `python -m benchmarks.storm [--odd-rows]`.

All take part side by side: their tasks sleep, and it is not measured how fast anybody is.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.machine import machine
from benchmarks.servers import postgres, version_of
from benchmarks.storm.contestants import Contestant
from benchmarks.storm.lineup import CELERY_IN_A_HURRY, PEERS, lineup
from benchmarks.storm.odd_rows import WINDOW_S, odd_rows_page
from benchmarks.storm.verdict import Kill, Verdict, executions, spread, verdict
from benchmarks.subject.installation import CHECKOUT

TASKS = 750
PAUSE_S = 0.06
STORM_S = 45.0
BOOT_S = 8.0  # before the first kill, so that all have begun
WORKER_INTERVAL_S = 1.5
MASTER_INTERVAL_S = 9.0
LOOK_S = 0.5
RESULTS = CHECKOUT / "benchmarks" / "results"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument(
        "--patience", type=float, default=600.0, help="how long what is left is waited for (600 s)"
    )
    parser.add_argument("--odd-rows", action="store_true", help="no kills, but rows that nobody can read")
    parser.add_argument(
        "--window", type=float, default=WINDOW_S, help="how long odd rows are looked at (60 s)"
    )
    parser.add_argument("--result", type=Path)
    given = parser.parse_args()
    with postgres() as server, ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reproq-storm-")))
        if given.odd_rows:
            page = odd_rows_page(lineup(server, scratch, stack, PEERS), given.window, version_of(server.url))
        else:
            print(f"seed {given.seed}", flush=True)
            found = lineup(server, scratch, stack, (*PEERS, CELERY_IN_A_HURRY))
            page = _storm_page([contestant for contestant, _ in found], given.seed, given.patience)
    (given.result or RESULTS / ("odd-rows.md" if given.odd_rows else "storm.md")).write_text(page)
    print(page)


def _storm_page(contestants: Sequence[Contestant], seed: int, patience_s: float) -> str:
    with ThreadPoolExecutor(len(contestants)) as threads:
        found = list(threads.map(lambda each: _storm(each, seed, patience_s), contestants))
    return _page(list(zip(contestants, found, strict=True)), seed, patience_s)


def _storm(contestant: Contestant, seed: int, patience_s: float) -> tuple[Verdict, Mapping[str, int]]:
    for _ in range(contestant.processes):
        contestant.start()
    try:
        time.sleep(BOOT_S)
        feeding = threading.Thread(target=contestant.feed, args=(TASKS, PAUSE_S, 0))
        feeding.start()
        kills = _kill(contestant, random.Random(seed))
        feeding.join()
        gives_up_at = time.monotonic() + patience_s
        while _never_finished(contestant) and time.monotonic() < gives_up_at:
            time.sleep(LOOK_S)
        found = verdict(TASKS, executions(_lines(contestant)), kills)
        print(f"  {contestant.name}: over, {found.never_finished} have never finished", flush=True)
        return found, contestant.states()
    finally:
        contestant.end()


def _kill(contestant: Contestant, dice: random.Random) -> list[Kill]:
    kills: list[Kill] = []
    begun = time.monotonic()
    next_master_s = MASTER_INTERVAL_S
    while (since_s := time.monotonic() - begun) < STORM_S:
        if since_s >= next_master_s:
            next_master_s += MASTER_INTERVAL_S
            _kill_one(contestant, dice.choice(contestant.running).pid, kills, master=True)
        elif workers := contestant.workers():
            _kill_one(contestant, dice.choice(workers), kills, master=False)
        time.sleep(WORKER_INTERVAL_S)
    return kills


def _kill_one(contestant: Contestant, pid: int, kills: list[Kill], *, master: bool) -> None:
    """A master that is dead is started anew at once, as by systemd."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    kills.append(Kill(pid, time.clock_gettime(time.CLOCK_BOOTTIME), master))
    for process in list(contestant.running):
        if process.pid == pid:
            process.wait()
            contestant.running.remove(process)
            contestant.start()


def _lines(contestant: Contestant) -> list[str]:
    return contestant.bodies.read_text().splitlines() if contestant.bodies.exists() else []


def _never_finished(contestant: Contestant) -> int:
    return verdict(TASKS, executions(_lines(contestant)), ()).never_finished


def _page(
    rows: Sequence[tuple[Contestant, tuple[Verdict, Mapping[str, int]]]], seed: int, patience_s: float
) -> str:
    place = machine()
    lines = [
        f"{TASKS:,} tasks of 200 ms each, enqueued over {TASKS * PAUSE_S:.0f} s; for {STORM_S:.0f} s a worker is "
        f"killed by SIGKILL each {WORKER_INTERVAL_S:g} s, and a master each {MASTER_INTERVAL_S:g} s, which is "
        f"started anew at once. Then up to {patience_s:.0f} s to finish. `make chaos-peers SEED={seed}`, "
        f"{datetime.now(UTC):%Y-%m-%d}, Python {sys.version.split()[0]}, {place['cores']} cores, "
        f"{place['system']}.",
        "",
        "| | kills (of masters) | never finished | executed again | … though it had finished | side by side "
        "| broken off | started again after, s: p50 / p99 / max | what its own tables say at the end |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for contestant, (found, states) in rows:
        left = ", ".join(f"{state} {count:,}" for state, count in sorted(states.items()))
        lines.append(
            f"| **{contestant.name} {contestant.version}** ({contestant.configuration}) "
            f"| {found.kills} ({found.kills_of_masters}) | {found.never_finished} | {found.executed_again} "
            f"| {found.again_though_finished} | {found.side_by_side} | {found.broken_off} "
            f"| {spread(found.recoveries_s)} | {left} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
