"""Who takes part: us, and the peers that can be installed here, each with a queue of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import Bench, Sizes
from benchmarks.peers.catalogue import named
from benchmarks.peers.lifecycle import installed
from benchmarks.servers import new_queue, redis, redis_version
from benchmarks.storm.contestants import Contestant, ours, peer
from benchmarks.storm.producers import Producer, our_producer, producer_of
from benchmarks.subject.installation import CHECKOUT
from reproq_prefork.demo.postgres import EmbeddedPostgres


@dataclass(frozen=True)
class Entry:
    """A peer, what is added to its configuration, and the variables by which its program knows that."""

    name: str
    added: str = ""
    environ: Mapping[str, str] | None = None


_REJECT = {"BENCH_REJECT_ON_WORKER_LOST": "1"}
PEERS: Sequence[Entry] = (
    Entry("django-ox"),
    Entry("django-tasks-db", "no recovery is documented"),
    Entry(
        "procrastinate",
        "its documented task that retries stalled jobs, each minute",
        {"BENCH_RETRY_STALLED": "1"},
    ),
    Entry("Celery prefork", "reject_on_worker_lost", _REJECT),
)
CELERY_IN_A_HURRY = Entry(
    "Celery prefork",
    "reject_on_worker_lost, visibility_timeout 60 s",
    {**_REJECT, "BENCH_TRANSPORT_OPTIONS": '{"visibility_timeout": 60}'},
)


def lineup(
    server: EmbeddedPostgres, scratch: Path, stack: ExitStack, peers: Sequence[Entry]
) -> list[tuple[Contestant, Producer]]:
    """Us first. A peer that cannot be installed is named and left out. `stack` ends the Redis that some need."""
    bench = Bench(server, scratch, CHECKOUT / ".venv-peers", 1, Sizes(), ())
    url = new_queue(server.url, "ours")
    found = [(ours(url, scratch / "ours"), our_producer(url))]
    for place, entry in enumerate(peers):
        (known,) = named((entry.name,))
        redis_url = stack.enter_context(redis(scratch / f"redis-{place}")) if redis_version() else None
        configuration = "; ".join(filter(None, (known.configuration, entry.added)))
        try:
            there = installed(known, bench, redis_url)
        except (OSError, RuntimeError) as error:
            print(f"{entry.name} is left out: {error}", flush=True)
            continue
        contestant = peer(there, scratch / f"peer-{place}", configuration, entry.environ)
        found.append((contestant, producer_of(there)))
    return found
