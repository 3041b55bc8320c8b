"""Guards of a worker's dealings with the database."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.builds import Change
from tests.support.guard import Guard

LEDGER = "tests/unit/worker/test_database.py"
LOOP = "tests/unit/worker/test_database_loop.py"

WORKERS: Sequence[Guard] = (
    Guard(
        "after a reconnect the old server process is ended",
        [
            Change(
                "worker/reconciling.py", "old_is_gone = store.end_previous_backend()", "old_is_gone = True"
            ),
        ],
        [f"{LOOP}::test_after_a_lost_connection_the_old_server_process_is_ended_before_held_runs_are_read"],
    ),
    Guard(
        "an old server process stays registered",
        [
            Change(
                "worker/reconciling.py", "store.reconnected(old_is_gone=old_is_gone)", "store.reconnected()"
            ),
        ],
        [f"{LOOP}::test_held_runs_are_read_each_second_until_the_old_server_process_is_gone"],
    ),
    Guard(
        "behind a pooler it is asked again",
        [
            Change(
                "worker/asking.py",
                "self._in_doubt_until, self._others_unseen = now + UNSEEN_S, False\n        elif old_is_gone",
                "self._in_doubt_until, self._others_unseen = now, False\n        elif old_is_gone",
            ),
        ],
        ["tests/unit/worker/test_asking.py"],
    ),
    Guard(
        "a draining worker connects for what it holds",
        [
            Change("worker/reconciling.py", "self._link.open(holding=holding)", "self._link.open()"),
        ],
        [LEDGER],
    ),
    Guard(
        "a draining worker asks for what it holds",
        [
            Change(
                "worker/reconciling.py",
                "self._link.pause(error, holding=holding)",
                "self._link.pause(error, holding=False)",
            ),
        ],
        [LEDGER],
    ),
    Guard(
        "what was being recorded is held",
        [
            Change(
                "worker/recording.py",
                "return bool(self.ended or self.pieces or self._accused or self.carried)",
                "return bool(self.ended or self.pieces or self.carried)",
            ),
        ],
        [LEDGER],
    ),
    Guard(
        "what is carried along is held",
        [
            Change(
                "worker/recording.py",
                "return bool(self.ended or self.pieces or self._accused or self.carried)",
                "return bool(self.ended or self.pieces or self._accused)",
            ),
        ],
        [LEDGER],
    ),
    Guard(
        "a question amid a task is asked in haste",
        [
            Change(
                "worker/reconciling.py",
                "            with store.in_haste():\n                self._look_for_old_process()",
                "            if True:\n                self._look_for_old_process()",
            ),
        ],
        [LEDGER],
    ),
    Guard(
        "what is carried along is not handed back amid a task",
        [
            Change("worker/reconciling.py", "{*known, *self._recording.carried.tokens}", "{*known}"),
        ],
        [f"{LOOP}::test_during_a_task_only_unknown_runs_are_handed_back"],
    ),
    Guard(
        "a run that cannot be read is failed",
        [
            Change(
                "worker/claiming.py", "recording.ended = unreadable\n            return None", "return turn"
            ),
        ],
        [LEDGER],
    ),
    Guard(
        "a claim without a lease ends the worker",
        [
            Change("worker/claiming.py", "if not holds_lease:", "if False:"),
        ],
        [f"{LOOP}::test_a_claim_shows_a_worker_that_its_lease_has_ended"],
    ),
    Guard(
        "an empty claim lengthens no lease",
        [
            Change("worker/claiming.py", "sent_ns if claim.runs else None", "sent_ns"),
        ],
        [f"{LOOP}::test_a_claim_without_a_run_does_not_extend_the_lease"],
    ),
    Guard(
        "a lone claim's lease counts from before it was sent",
        [
            Change(
                "worker/claiming.py",
                "self._held(alone.holds_lease, sent_ns)",
                "self._held(alone.holds_lease, boottime_ns())",
            ),
        ],
        [f"{LOOP}::test_a_lease_counts_from_the_time_of_the_request"],
    ),
    Guard(
        "a claim's lease counts from before it was sent",
        [
            Change(
                "worker/claiming.py",
                "lease_end_ns=claimed_ns + self._believed_lease_ns",
                "lease_end_ns=boottime_ns() + self._believed_lease_ns",
            ),
        ],
        [f"{LOOP}::test_a_lease_counts_from_the_time_of_the_request"],
    ),
    Guard(
        "a registration's lease counts from before it was sent",
        [
            Change(
                "worker/database.py",
                "lease_end_ns=sent_ns + self._believed_lease_ns",
                "lease_end_ns=boottime_ns() + self._believed_lease_ns",
            ),
        ],
        [f"{LOOP}::test_a_lease_counts_from_the_time_of_the_request"],
    ),
)
