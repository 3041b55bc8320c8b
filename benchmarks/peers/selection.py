"""The peers that were asked for, installed and with a queue; what cannot be installed is said and left out."""

from __future__ import annotations

import sys
from contextlib import ExitStack

from benchmarks.bench import Bench
from benchmarks.peers.catalogue import named
from benchmarks.peers.lifecycle import InstalledPeer, installed
from benchmarks.peers.peer import Service
from benchmarks.servers import redis, redis_version


def installed_peers(bench: Bench, stack: ExitStack) -> list[InstalledPeer]:
    """`stack` ends the Redis that some of them need."""
    wanted = named(bench.peers)
    redis_url: str | None = None
    if any(peer.service is Service.REDIS for peer in wanted) and redis_version() is not None:
        redis_url = stack.enter_context(redis(bench.scratch / "redis"))
    made = []
    for peer in wanted:
        try:
            made.append(installed(peer, bench, redis_url))
        except (OSError, RuntimeError) as error:
            sys.stderr.write(f"  {peer.name} is left out: {error}\n")
    return made
