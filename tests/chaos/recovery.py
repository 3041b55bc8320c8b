"""How long what a fault has broken off, or what nobody works on, waits: measured, and against its bound."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from reproq_prefork.model.run import Status
from tests.chaos.executions import Execution, Story, faults_between, seconds_stalled
from tests.chaos.history import Edge, Fault
from tests.chaos.kinds import LEASE_S, SWEEP_S

LENIENCE_S = 3.0  # beyond the bounds of recovery: they are for a machine that has a core for each process


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a fault has broken off: how long until the run was PENDING again or ended, and until it ran again."""

    fault: Fault
    execution: Execution
    free_s: float
    again_s: float | None
    late_s: float  # beyond what the faults of that time allow


@dataclass(frozen=True, slots=True)
class Idleness:
    """A run that was RUNNING by a claim, and no body of it ran meanwhile."""

    run_id: int
    claim: int
    host: str
    since: float
    until: float

    @property
    def seconds(self) -> float:
        return self.until - self.since


def recovery_is_in_time(story: Story) -> Iterator[str]:
    for recovery in recoveries(story):
        if recovery.late_s > LENIENCE_S:
            yield (
                f"after {recovery.fault.kind}, {story.name(recovery.execution.run_id)} was free "
                f"{recovery.free_s:.2f} s later, and {recovery.late_s:.2f} s later than may be"
            )


def recoveries(story: Story) -> list[Recovery]:
    """Of each execution that was broken off, by its own last fault. Several faults may delay it."""
    claimed_at = {
        (edge.run_id, edge.claim): edge.at for edge in story.history.edges if edge.new == Status.RUNNING
    }
    found = []
    for run_id, executions in story.executions_of.items():
        for execution in executions:
            edge = story.left_running.get((run_id, execution.claim))
            if edge is None or edge.new == Status.SUCCESSFUL or execution.failed:
                continue
            faults = faults_between(story.history.faults, execution.started_at, edge.at)
            causes = [fault for fault in faults if fault.reruns and execution.was_hit_by(fault)]
            if causes:
                cause = max(causes, key=lambda fault: fault.recovers_from)
                again_at = claimed_at.get((run_id, execution.claim + 1))
                found.append(
                    Recovery(
                        fault=cause,
                        execution=execution,
                        free_s=max(0.0, edge.at - cause.recovers_from),
                        again_s=None if again_at is None else max(0.0, again_at - cause.recovers_from),
                        late_s=edge.at - max(fault.recovers_from + fault.recovery_s for fault in faults),
                    )
                )
    return found


def none_is_held_by_nobody(story: Story) -> Iterator[str]:
    """No row stays RUNNING longer than its lease, and the sweep after it, without a body that runs.

    Most wait for nothing: behind others of their batch, for the start of a process, for the record of their end. A
    host that stands still is no reason, for others sweep; but while the server stalls nobody can.
    """
    for idle in idlenesses(story, longer_than_s=LEASE_S + SWEEP_S + LENIENCE_S):
        stalled_s = seconds_stalled(story.history.faults, idle.host, idle.since, idle.until)
        if idle.seconds - stalled_s > LEASE_S + SWEEP_S + LENIENCE_S:
            yield (
                f"{story.name(idle.run_id)} was RUNNING by claim {idle.claim} for {idle.seconds:.2f} s, "
                f"and nobody ran it; the server stalled for {stalled_s:.2f} s of these"
            )


def idlenesses(story: Story, *, longer_than_s: float) -> Iterator[Idleness]:
    """What was RUNNING for that long before its body started, after its last sign of life, or without one."""
    for run_id, edges in story.edges_of.items():
        executions = {execution.claim: execution for execution in story.executions_of.get(run_id, ())}
        for claimed, until in _held(edges, story.over_at):
            if until - claimed.at <= longer_than_s:
                continue
            execution = executions.get(claimed.claim)
            spans = [(claimed.at, until)]
            if execution is not None:
                spans = [(claimed.at, execution.started_at), (execution.seen_at, until)]
            for since, end in spans:
                if end - since > longer_than_s:
                    yield Idleness(run_id, claimed.claim, claimed.host, since, end)


def _held(edges: list[Edge], over_at: float) -> Iterator[tuple[Edge, float]]:
    """Each claim, and until when the run was RUNNING by it."""
    for claimed, left in pairwise(edges):
        if claimed.new == Status.RUNNING:
            yield claimed, left.at
    if edges[-1].new == Status.RUNNING:
        yield edges[-1], over_at
