"""Where in its queues a worker's next claim begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reproq_prefork.model.run import ClaimedRun, Place

# Between two looks at the head: a run may have come there meanwhile, handed back or committed late.
FROM_HEAD_S = 0.5
FROM_HEAD_SHARE = 0.03  # of the time, at most, goes into looking there


class ClaimPosition:
    """Behind which run each queue is looked through. Times are in seconds, of any one clock.

    At the head of the index are the entries of the runs that were claimed before, dead until a vacuum takes them
    away: in a long drain, or beside a long transaction, walking over them costs more than all else. So a claim
    begins behind the last one of this worker, except every now and then.
    """

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._from_head_at = 0.0

    def places(self, now: float) -> Mapping[str, Place]:
        """For a claim at `now`; none: from the head of every queue."""
        if now >= self._from_head_at:
            self._places = {}
        return self._places

    def claimed(self, runs: Sequence[ClaimedRun], sent_at: float, now: float) -> None:
        """What a claim has got. One from the head, sent at `sent_at`, says when the next is to be."""
        if not self._places:
            self._from_head_at = now + max(FROM_HEAD_S, (now - sent_at) / FROM_HEAD_SHARE)
        last = {run.queue_name: run for run in runs}
        self._places = {**self._places, **{queue_name: run.place for queue_name, run in last.items()}}

    def forget(self) -> None:
        """The next claim begins at the head."""
        self._places = {}
        self._from_head_at = 0.0
