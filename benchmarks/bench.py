"""What all measurements share: the servers, where peers are installed, how many rounds and how large."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from reproq_prefork.demo.postgres import EmbeddedPostgres


@dataclass(frozen=True)
class Sizes:
    """How much is measured. A drain is to take some seconds: what is faster gets more tasks."""

    inline_runs: int = 50_000
    single_runs: int = 10_000  # one commit a task
    fork_runs: int = 2_000
    command_runs: int = 1_000
    limit_runs: int = 10_000
    limit_batch_runs: int = 100_000
    workers: tuple[int, ...] = (1, 2, 4, 8)
    with_django: bool = True
    pick_ups: int = 60
    enqueues: int = 1_500  # one by one
    bulk_runs: int = 20_000
    claims: int = 150  # in a round, for each backlog
    backlog_share: float = 1.0  # of 1k, 100k, 1M, 5M pending
    finished_rows: int = 10_000_000
    sustained_runs: int = 500_000
    idle_s: float = 60.0
    kills: int = 5
    peer_share: float = 1.0  # of the tasks that a peer is drained of

    def scaled(self, share: float) -> Self:
        """Everything but the numbers of workers, times `share`; never nothing."""
        numbers: dict[str, Any] = {
            name: max(type(value)(1), type(value)(value * share))
            for name, value in vars(self).items()
            if type(value) is int
        }
        shares: dict[str, Any] = {
            "backlog_share": self.backlog_share * share,
            "peer_share": self.peer_share * share,
            "idle_s": max(1.0, self.idle_s * share),
        }
        return replace(self, **numbers, **shares)


QUICK = Sizes(
    inline_runs=10_000,
    single_runs=4_000,
    fork_runs=800,
    command_runs=300,
    limit_runs=5_000,
    limit_batch_runs=20_000,
    workers=(1, 2, 4),
    with_django=False,
    pick_ups=40,
    enqueues=500,
    bulk_runs=10_000,
)


@dataclass(frozen=True)
class Bench:
    """One run of the suite."""

    server: EmbeddedPostgres
    scratch: Path  # a directory for logs and the like, gone afterwards
    environments: Path  # where the peers are installed; kept
    rounds: int
    sizes: Sizes
    peers: tuple[str, ...]
