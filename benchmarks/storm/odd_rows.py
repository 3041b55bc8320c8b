"""Five rows that a worker cannot read, between good tasks, for one contestant: what becomes of them all."""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from benchmarks.machine import machine
from benchmarks.servers import redis_version
from benchmarks.storm.contestants import Contestant, children_of, kill_group
from benchmarks.storm.odd_inputs import OddInput
from benchmarks.storm.odd_verdict import Outcome, tables
from benchmarks.storm.producers import Producer
from benchmarks.storm.verdict import executions, verdict

GOOD_BEFORE = 20
GOOD_AFTER = 20
ODD = 5
BOOT_S = 8.0
WINDOW_S = 60.0
RESTART_S = 1.0  # until a master that has ended is started again, as by systemd with `Restart=always`
LOOK_S = 0.1
SETTLE_S = 3.0  # a master that starts has children that come and go


def odd_rows_page(
    contestants: Sequence[tuple[Contestant, Producer]], window_s: float, postgres_version: str
) -> str:
    """All that each producer knows, one after another; the contestants side by side."""
    with ThreadPoolExecutor(len(contestants)) as threads:
        found = list(threads.map(lambda each: _trials(each[0], each[1], window_s), contestants))
    place = machine()
    lines = [
        f"{GOOD_BEFORE} good tasks of 200 ms, {ODD} odd rows and {GOOD_AFTER} good tasks are enqueued, one after "
        f"another; this is what is so {window_s:.0f} s later. A master that ends is started again after "
        f"{RESTART_S:g} s. "
        f"`python -m benchmarks.storm --odd-rows`, {datetime.now(UTC):%Y-%m-%d}, Python {sys.version.split()[0]}, "
        f"PostgreSQL {postgres_version}, Redis {redis_version()}, {place['cores']} cores, {place['system']}.",
        "",
        *tables(
            {
                f"{each.name} {each.version}": outcomes
                for (each, _), outcomes in zip(contestants, found, strict=True)
            }
        ),
    ]
    return "\n".join(lines) + "\n"


def _trials(contestant: Contestant, producer: Producer, window_s: float) -> list[Outcome]:
    outcomes = []
    for odd in producer.inputs:
        outcomes.append(trial(contestant, producer, odd, window_s))
        print(f"  {contestant.name}, {odd.what}: {outcomes[-1].sentence}", flush=True)
    return outcomes


def trial(
    contestant: Contestant,
    producer: Producer,
    odd: OddInput,
    window_s: float,
    *,
    boot: Callable[[], None] = lambda: time.sleep(BOOT_S),
    wait: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Start its workers, enqueue good tasks, odd rows and good tasks, and look after `window_s`."""
    producer.empty()
    contestant.bodies.unlink(missing_ok=True)
    for _ in range(contestant.processes):
        contestant.start()
    try:
        boot()
        with _kept_running(contestant) as restarts:
            contestant.feed(GOOD_BEFORE, 0.0, 0)
            odd_at = time.monotonic()
            producer.add(odd, ODD)
            contestant.feed(GOOD_AFTER, 0.0, GOOD_BEFORE)
            wait(window_s)
        good = GOOD_BEFORE + GOOD_AFTER
        lines = contestant.bodies.read_text().splitlines() if contestant.bodies.exists() else []
        return Outcome(
            what=odd.what,
            good=good,
            done=good - verdict(good, executions(lines), ()).never_finished,
            restarts_s=tuple(at - odd_at for at in restarts if at >= odd_at),
            window_s=window_s,
            fates=producer.fates(),
        )
    finally:
        contestant.end()


@contextmanager
def _kept_running(contestant: Contestant) -> Iterator[list[float]]:
    """Start masters again that end. Gives when that was, and when masters replaced a worker of theirs."""
    restarts_at: list[float] = []
    is_over = threading.Event()
    thread = threading.Thread(target=_keep_running, args=(contestant, restarts_at, is_over))
    thread.start()
    try:
        yield restarts_at
    finally:
        is_over.set()
        thread.join()


def _keep_running(contestant: Contestant, restarts_at: list[float], is_over: threading.Event) -> None:
    fleets: dict[int, Fleet] = defaultdict(Fleet)
    settled_at: dict[int, float] = {}
    due_at: list[float] = []
    while not is_over.wait(LOOK_S):
        now = time.monotonic()
        for master in list(contestant.running):
            if master.poll() is None:
                if now < settled_at.get(master.pid, now):
                    continue
                restarts_at += [now] * fleets[master.pid].replaced(
                    {child.pid for child in children_of(master)}
                )
            else:
                kill_group(master)
                contestant.running.remove(master)
                due_at.append(now + RESTART_S)
        while due_at and due_at[0] <= now:
            due_at.pop(0)
            restarts_at.append(now)
            contestant.start()
            settled_at[contestant.running[-1].pid] = now + SETTLE_S


@dataclass
class Fleet:
    """The children of one master. Those that end with it are not replaced, and not counted."""

    seen: set[int] = field(default_factory=set)
    most: int = 0  # at the same time
    counted: int = 0

    def replaced(self, there: Collection[int]) -> int:
        """How many more there are than when it was last asked."""
        self.seen |= set(there)
        self.most = max(self.most, len(there))
        before, self.counted = self.counted, len(self.seen) - self.most
        return max(0, self.counted - before)
