"""Where in its queues a worker's next claim begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reproq_prefork.model.run import ClaimedRun, Place

# Between two claims from the head. A run that was handed back or committed late may appear there.
FROM_HEAD_S = 0.5
FROM_HEAD_SHARE = 0.03  # at most this share of the time is spent on claims from the head


class ClaimPosition:
    """After which run the search in each queue begins. Times are in seconds of one clock, whichever it is.

    At the head of the index are the entries of runs that were claimed before. They are dead, but stay until a
    vacuum removes them. In a long drain, or beside a long transaction, reading them costs more than everything
    else. So a claim begins after the last run that this worker claimed, except from time to time.
    """

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._from_head_at = 0.0

    def places(self, now: float) -> Mapping[str, Place]:
        """The places for a claim at `now`. Empty: begin at the head of every queue."""
        if now >= self._from_head_at:
            self._places = {}
        return self._places

    def claimed(self, runs: Sequence[ClaimedRun], sent_at: float, now: float) -> None:
        """Note the runs of a claim that was sent at `sent_at`.

        The time that a claim from the head took decides when the next one from the head comes.
        """
        if not self._places:
            self._from_head_at = now + max(FROM_HEAD_S, (now - sent_at) / FROM_HEAD_SHARE)
        last = {run.queue_name: run for run in runs}
        self._places = {**self._places, **{queue_name: run.place for queue_name, run in last.items()}}

    def forget(self) -> None:
        """The next claim begins at the head."""
        self._places = {}
        self._from_head_at = 0.0
