"""What holds for the runs that ask for more than to be run: effects, cancels, keys, waits, memory, odd rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import FINAL_STATUSES, Status
from tests.chaos.executions import CLOCK_SLACK_S, Story, seconds_stalled
from tests.chaos.history import Cancel, Edge, KeyAnswer, Row
from tests.chaos.kinds import LEASE_S, SWEEP_S
from tests.chaos.recovery import LENIENCE_S

STATUSES = frozenset[str](Status)
# The end of a run that was lost with its holder: one that was cancelled must not get it.
LOST_WITH_ITS_HOLDER = frozenset({FailureKind.WORKER_LOST, FailureKind.LEASE_EXPIRED, FailureKind.SHUTDOWN})


def effects_are_there_once(story: Story) -> Iterator[str]:
    """What an atomic task writes is there once where its run is SUCCESSFUL, by its last claim, and never else."""
    found: dict[int, list[int]] = defaultdict(list)
    for effect in story.history.effects:
        found[effect.run_id].append(effect.claim)
    for row in story.history.rows:
        claims = found.pop(row.run_id, [])
        due = [row.claims] if row.is_atomic and row.status == Status.SUCCESSFUL else []
        if claims != due:
            yield f"run {row.run_id} is {row.status} by claim {row.claims}, and has effects of claims {claims}"
    for run_id, claims in found.items():
        yield f"run {run_id} has effects of claims {claims}, and there is no such run"


def a_cancelled_run_does_not_run_again(story: Story) -> Iterator[str]:
    """A cancel that was answered ends in CANCELLED, or in an end of the run's own doing, and in time."""
    for cancel in story.history.cancels:
        if cancel.answer not in STATUSES:  # nobody knows, or there was no such run
            continue
        edges = story.edges_of.get(cancel.run_id, [])
        for edge in edges:
            if edge.at > cancel.at + CLOCK_SLACK_S and edge.new in (Status.PENDING, Status.RUNNING):
                yield f"run {cancel.run_id} went to {edge.new} after its cancel was answered {cancel.answer}"
        end = next((edge for edge in edges if edge.new in FINAL_STATUSES), None)
        if end is not None:
            yield from _wrong_end(story, cancel, end)


def _wrong_end(story: Story, cancel: Cancel, end: Edge) -> Iterator[str]:
    if cancel.answer == Status.RUNNING:
        host = next(
            edge.host for edge in reversed(story.edges_of[cancel.run_id]) if edge.new == Status.RUNNING
        )
        late_s = end.at - cancel.at - seconds_stalled(story.history.faults, host, cancel.at, end.at)
        if late_s > LEASE_S + SWEEP_S + LENIENCE_S:
            yield f"run {cancel.run_id} went on for {late_s:.2f} s after its cancel"
        if end.new == Status.FAILED and end.error_kind in LOST_WITH_ITS_HOLDER:
            yield f"run {cancel.run_id} was cancelled, and is FAILED for {end.error_kind}"
    elif cancel.answer in FINAL_STATUSES and (end.new != cancel.answer or end.at > cancel.at + CLOCK_SLACK_S):
        yield f"the cancel of run {cancel.run_id} was answered {cancel.answer}, and it ended {end.new} later"


def one_live_run_of_a_key(story: Story) -> Iterator[str]:
    """By the server's clock alone: a run is added only after the one that held its key has ended.

    And every producer was told the run that holds the key: its own, or one that was live while it asked.
    """
    rows_of: dict[str, list[Row]] = defaultdict(list)
    for row in story.history.rows:
        if row.key is not None:
            rows_of[row.key].append(row)
    for key, rows in rows_of.items():
        rows.sort(key=lambda row: row.added_at or 0.0)
        for earlier, later in pairwise(rows):
            if _ended_at(story, earlier.run_id) > (later.added_at or 0.0):
                yield f"run {later.run_id} was added while run {earlier.run_id} held the key {key}"
    for answer in story.history.key_answers:
        yield from _wrong_answer(story, answer)


def _wrong_answer(story: Story, answer: KeyAnswer) -> Iterator[str]:
    row = story.rows.get(answer.run_id)
    if row is None or row.key != answer.key or (row.number == answer.number) is not answer.created:
        yield (
            f"run number {answer.number} was answered by run {answer.run_id} (created: {answer.created}), "
            f"which is not the holder of the key {answer.key}"
        )
    elif (row.added_at or 0.0) > answer.at + CLOCK_SLACK_S or (
        not answer.created and _ended_at(story, row.run_id) < answer.sent_at - CLOCK_SLACK_S
    ):
        yield f"run number {answer.number} was answered by run {row.run_id}, which was not live at that time"


def _ended_at(story: Story, run_id: int) -> float:
    ends = (edge.at for edge in story.edges_of.get(run_id, ()) if edge.new in FINAL_STATUSES)
    return next(ends, float("inf"))


def a_retry_waits(story: Story) -> Iterator[str]:
    """At least as long as `Retry(after=…)` said, from its being raised to the next claim."""
    claimed_at = {
        (edge.run_id, edge.claim): edge.at for edge in story.history.edges if edge.new == Status.RUNNING
    }
    for row in story.history.rows:
        if row.retry_after_s is None:
            continue
        for execution in story.executions_of.get(row.run_id, ()):
            again_at = claimed_at.get((row.run_id, execution.claim + 1))
            if again_at is None or not story.failed_by_itself(execution):
                continue
            waited_s = again_at - execution.seen_at
            if waited_s < row.retry_after_s - CLOCK_SLACK_S:
                yield f"run {row.run_id} was to wait {row.retry_after_s:g} s, and waited {waited_s:.2f} s"


def who_lacks_memory_has_hoarded(story: Story) -> Iterator[str]:
    """The limit on memory ends exactly the attempts that ask for more, and each of these is recorded as such."""
    for row in story.history.rows:
        if not row.hoards:
            if row.memory_errors:
                yield f"run {row.run_id} died for want of memory, and asked for little"
            continue
        if row.status == Status.SUCCESSFUL:
            yield f"run {row.run_id} asked for more memory than a task may have, and got it"
        died = sum(map(story.failed_by_itself, story.executions_of.get(row.run_id, ())))
        if died != row.memory_errors:
            yield (
                f"run {row.run_id} died for want of memory {died} times, "
                f"and {row.memory_errors} of them are recorded"
            )


def odd_rows_fail(story: Story) -> Iterator[str]:
    """A row that nobody can run ends FAILED, unless somebody has cancelled it. Other rules find what it costs."""
    for row in story.history.rows:
        if row.is_odd and row.status == Status.SUCCESSFUL:
            yield f"run {row.run_id} is {row.status}, and nobody could run it"
