"""What the rules of the checker ask of a history again and again: executions, edges by run, faults by time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reproq_prefork.model.outcome import FailureKind
from reproq_prefork.model.run import Status
from tests.chaos.history import Edge, Fault, History, Moment, Page

CLOCK_SLACK_S = 0.05  # between the clocks of the server and of the processes, and to write a line

# What becomes of an attempt by its own doing; every other kind of error needs a fault that explains it.
OWN_FAILURES = frozenset(
    {FailureKind.FAILED, FailureKind.KILLED, FailureKind.TIMEOUT, FailureKind.UNUSABLE_OUTPUT}
)


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a body. `seen_at`: its last sign of life. Without a last line (`ended` False) it was killed."""

    run_id: int
    claim: int
    started_at: float
    seen_at: float
    ended: bool
    failed: bool
    host: str
    pids: frozenset[int]  # of the task, of what it has started, and of whoever has started it

    def was_hit_by(self, fault: Fault) -> bool:
        return fault.host in (None, self.host) and (not fault.pids or bool(fault.pids & self.pids))


class Story:
    """A history, with what is made of it once."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.edges_of = _edges_by_run(history.edges)
        self.executions_of = _executions_by_run(history.pages)
        self.left_running = {
            (edge.run_id, edge.claim): edge for edge in history.edges if edge.old == Status.RUNNING
        }
        self.rows = {row.run_id: row for row in history.rows}
        self.over_at = max((edge.at for edge in history.edges), default=0.0)  # the last that has happened

    def name(self, run_id: int) -> str:
        row = self.rows.get(run_id)
        return f"run {run_id} ({row.work})" if row is not None and row.work else f"run {run_id}"

    def failed_by_itself(self, execution: Execution) -> bool:
        """It was about to fail, and that is what was recorded of it."""
        edge = self.left_running.get((execution.run_id, execution.claim))
        return execution.failed and edge is not None and edge.error_kind in OWN_FAILURES

    def needed_its_connection(self, execution: Execution) -> bool:
        """An atomic task, which has failed: it may have lost the connection that it worked on."""
        row = self.rows.get(execution.run_id)
        edge = self.left_running.get((execution.run_id, execution.claim))
        return (
            row is not None and row.is_atomic and edge is not None and edge.error_kind == FailureKind.FAILED
        )

    def was_paused(self, execution: Execution) -> bool:
        """The whole host, or its master, stood still while this ran."""
        between = faults_between(self.history.faults, execution.started_at, execution.seen_at)
        return any(fault.pauses and execution.was_hit_by(fault) for fault in between)


def faults_between(faults: Sequence[Fault], since: float, until: float) -> list[Fault]:
    return [
        fault
        for fault in faults
        if fault.at <= until + CLOCK_SLACK_S and fault.until >= since - CLOCK_SLACK_S
    ]


def seconds_stalled(faults: Iterable[Fault], host: str, since: float, until: float) -> float:
    """For how long, of the time between, nothing could be written for runs that this host had claimed."""
    total, reached = 0.0, since
    stalls = (fault for fault in faults if fault.stalls and fault.host in (None, host))
    for fault in sorted(stalls, key=lambda fault: fault.at):
        begin, end = max(fault.at, reached), min(fault.until, until)
        if end > begin:
            total, reached = total + end - begin, end
    return total


def _edges_by_run(edges: Iterable[Edge]) -> dict[int, list[Edge]]:
    found: dict[int, list[Edge]] = defaultdict(list)
    for edge in sorted(edges, key=lambda edge: edge.at):
        found[edge.run_id].append(edge)
    return found


def _executions_by_run(pages: Iterable[Page]) -> dict[int, list[Execution]]:
    """In the order of their claims."""
    written_of: dict[tuple[int, int], list[Page]] = defaultdict(list)
    for page in pages:
        written_of[page.run_id, page.claim].append(page)
    found: dict[int, list[Execution]] = defaultdict(list)
    for (run_id, claim), written in sorted(written_of.items()):
        starts = [page.at for page in written if page.moment is Moment.START]
        if starts:
            found[run_id].append(
                Execution(
                    run_id=run_id,
                    claim=claim,
                    started_at=min(starts),
                    seen_at=max(page.at for page in written),
                    ended=any(page.moment in (Moment.END, Moment.FAIL) for page in written),
                    failed=any(page.moment is Moment.FAIL for page in written),
                    host=written[0].host,
                    pids=frozenset(pid for page in written for pid in (page.pid, page.parent)),
                )
            )
    return found
