"""The same kills for us and for peers: `python -m benchmarks.storm [--seed N] [--patience SECONDS]`.

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

from benchmarks.bench import Bench, Sizes
from benchmarks.machine import machine
from benchmarks.peers.catalogue import named
from benchmarks.peers.lifecycle import installed
from benchmarks.servers import new_queue, postgres, redis, redis_version
from benchmarks.storm.contestants import Contestant, ours, peer
from benchmarks.storm.verdict import Kill, Verdict, executions, spread, verdict
from benchmarks.subject.installation import CHECKOUT

TASKS = 750
PAUSE_S = 0.06
STORM_S = 45.0
BOOT_S = 8.0  # before the first kill, so that all have begun
WORKER_INTERVAL_S = 1.5
MASTER_INTERVAL_S = 9.0
LOOK_S = 0.5
RESULT = CHECKOUT / "benchmarks" / "results" / "storm.md"

# (peer, what is added to its configuration, the variables by which its program knows that)
PEERS: Sequence[tuple[str, str, Mapping[str, str]]] = (
    ("django-ox", "", {}),
    ("django-tasks-db", "no recovery is documented", {}),
    (
        "procrastinate",
        "its documented task that retries stalled jobs, each minute",
        {"BENCH_RETRY_STALLED": "1"},
    ),
    ("Celery prefork", "reject_on_worker_lost", {"BENCH_REJECT_ON_WORKER_LOST": "1"}),
    (
        "Celery prefork",
        "reject_on_worker_lost, visibility_timeout 60 s",
        {"BENCH_REJECT_ON_WORKER_LOST": "1", "BENCH_TRANSPORT_OPTIONS": '{"visibility_timeout": 60}'},
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument(
        "--patience", type=float, default=600.0, help="how long what is left is waited for (600 s)"
    )
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with postgres() as server, ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="reproq-storm-")))
        bench = Bench(server, scratch, CHECKOUT / ".venv-peers", 1, Sizes(), ())
        contestants = [ours(new_queue(server.url, "ours"), scratch / "ours")]
        for place, (name, added, environ) in enumerate(PEERS):
            (known,) = named((name,))
            url = stack.enter_context(redis(scratch / f"redis-{place}")) if redis_version() else None
            configuration = "; ".join(filter(None, (known.configuration, added)))
            try:
                there = installed(known, bench, url)
            except (OSError, RuntimeError) as error:
                print(f"{name} is left out: {error}", flush=True)
                continue
            contestants.append(peer(there, scratch / f"peer-{place}", configuration, environ))
        with ThreadPoolExecutor(len(contestants)) as threads:
            found = list(threads.map(lambda each: _storm(each, given.seed, given.patience), contestants))
    page = _page(list(zip(contestants, found, strict=True)), given.seed, given.patience)
    given.result.write_text(page)
    print(page)


def _storm(contestant: Contestant, seed: int, patience_s: float) -> tuple[Verdict, Mapping[str, int]]:
    for _ in range(contestant.processes):
        contestant.start()
    try:
        time.sleep(BOOT_S)
        feeding = threading.Thread(target=contestant.feed, args=(TASKS, PAUSE_S))
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
