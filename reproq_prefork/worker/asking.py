"""When a worker asks the database which runs it holds. It hands back the runs that it does not know.

If the reply to a claim is lost, the claim may be committed later, as long as its server process exists. A disk
that stalls makes a commit wait, and no timeout of the server ends that. The run would then be RUNNING for as long
as this worker lives, because its lease is renewed. Hence three rules:

* After each lost connection the worker first ends the old server process, then asks. If it has seen that process
  gone, the answer is final.
* If it has not, it asks again each second until it has, even during a task. Behind a pooler a server process is
  shared and is not ended, so nobody can see it gone. There the worker asks for half a minute, which is longer than
  any statement may take.
* In any case it asks once a lease, between two runs or while it is idle.

During a task a worker needs no more than that. It sends one statement after the other, so a claim that it does not
know is a claim whose reply was lost. For such a claim the first two rules decide.
"""

from __future__ import annotations

import math

from reproq_prefork.store.connection import UNSEEN_S

AGAIN_S = 1.0


class Asking:
    """Times are in seconds of the monotonic clock. `every_s`: not more than a lease."""

    def __init__(self, every_s: float, now: float) -> None:
        self._every_s = every_s
        self._in_doubt_until = -math.inf  # infinity: as long as the old server process is not seen gone
        self._others_unseen = False
        self.at = now + every_s

    def is_in_doubt(self, now: float) -> bool:
        """Whether a claim whose reply was lost may still be committed."""
        return now < self._in_doubt_until

    @property
    def awaits_old_process(self) -> bool:
        """The old server process is registered, and has not been seen gone yet."""
        return self._in_doubt_until == math.inf

    def connected_again(self, now: float, *, pooled: bool, old_is_gone: bool) -> None:
        """`old_is_gone`: the registered server process was seen gone."""
        # While we wait for one process, later ones are not registered. Nobody sees them gone.
        self._others_unseen = self._others_unseen or self.awaits_old_process
        if pooled:
            self._in_doubt_until, self._others_unseen = now + UNSEEN_S, False
        elif old_is_gone:
            self.old_process_is_gone(now)
        else:
            self._in_doubt_until = math.inf

    def old_process_is_gone(self, now: float) -> None:
        if self._others_unseen:
            self._in_doubt_until, self._others_unseen = now + UNSEEN_S, False
        elif self.awaits_old_process:
            self._in_doubt_until = -math.inf

    def asked(self, now: float, *, is_answered: bool = True) -> None:
        self.at = now + (self._every_s if is_answered and not self.is_in_doubt(now) else AGAIN_S)
