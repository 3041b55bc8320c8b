"""Whether a history may be: each rule by itself, over plain data. No log is trusted about what another knows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from reproq_prefork.task_run import FINAL_STATUSES, LEGAL_EDGES, Status
from tests.chaos.history import Answer, Edge, Fault, History, Moment, Page

PROGRESS_S = 10.0  # after everything is healed
LENIENCE_S = 3.0  # beyond the bounds of recovery: they are for a machine that has a core for each process
CLOCK_SLACK_S = 0.05  # between the clocks of the server and of the processes, and to write a line


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str
    what: str


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


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a fault has broken off: how long until the run was PENDING again or ended, and until it ran again."""

    fault: Fault
    execution: Execution
    free_s: float
    again_s: float | None
    late_s: float  # beyond what the faults of that time allow


def violations(history: History) -> list[Violation]:
    return [Violation(name, what) for name, rule in RULES.items() for what in rule(history)]


def _nothing_is_lost(history: History) -> Iterator[str]:
    """What a producer was told is there is there, once and ended; what it was told is not, is not."""
    rows = Counter(row.number for row in history.rows)
    for told in history.told:
        found = rows[told.number]
        allowed = {Answer.OK: {1}, Answer.FAILED: {0}, Answer.UNKNOWN: {0, 1}}[told.answer]
        if found not in allowed:
            yield f"run number {told.number} was {told.answer.value}, and is there {found} times"
    for row in history.rows:
        if row.status not in FINAL_STATUSES:
            yield f"run {row.run_id} is {row.status} at the end"


def _nothing_comes_from_nowhere(history: History) -> Iterator[str]:
    told = {each.number for each in history.told if each.answer is not Answer.FAILED}
    for row in history.rows:
        if row.number not in told:
            yield f"run {row.run_id} (number {row.number}) was enqueued by nobody"
    known = {row.run_id for row in history.rows}
    for run_id in {page.run_id for page in history.pages} - known:
        yield f"run {run_id} has run, and there is no such run"


def _edges_are_legal(history: History) -> Iterator[str]:
    for run_id, edges in _edges_by_run(history).items():
        status: str = Status.PENDING
        for edge in edges:
            if (edge.old, edge.new) not in LEGAL_EDGES:
                yield f"run {run_id} went from {edge.old} to {edge.new}"
            if edge.old != status:
                yield f"run {run_id} was {status} and went from {edge.old} to {edge.new}"
            status = edge.new


def _each_ends_once(history: History) -> Iterator[str]:
    """By the holder of the latest claim, and as the table says at the end."""
    edges_of = _edges_by_run(history)
    for row in history.rows:
        edges = edges_of.get(row.run_id, [])
        ends = [edge for edge in edges if edge.new in FINAL_STATUSES]
        if len(ends) != 1:
            yield f"run {row.run_id} has ended {len(ends)} times"
            continue
        latest = max((edge.claim for edge in edges if edge.new == Status.RUNNING), default=0)
        if ends[0].claim != latest:
            yield f"run {row.run_id} was ended by claim {ends[0].claim}, and claim {latest} was the latest"
        if (row.status, row.claims) != (ends[0].new, latest):
            yield (
                f"run {row.run_id} is {row.status} by claim {row.claims}, "
                f"and has ended {ends[0].new} by claim {latest}"
            )


def _claims_grow(history: History) -> Iterator[str]:
    for run_id, edges in _edges_by_run(history).items():
        claims = [edge.claim for edge in edges if edge.new == Status.RUNNING]
        if claims != list(range(1, len(claims) + 1)):
            yield f"run {run_id} was claimed as {claims}"
    for row in history.rows:
        if row.attempts > row.max_attempts:
            yield f"run {row.run_id} was attempted {row.attempts} times of {row.max_attempts}"


def _no_more_starts_than_attempts(history: History) -> Iterator[str]:
    """An attempt is charged before its body starts; one that is refunded has an end that says so."""
    starts = Counter(page.run_id for page in history.pages if page.moment is Moment.START)
    for row in history.rows:
        if starts[row.run_id] > row.claims:
            yield f"run {row.run_id} has started {starts[row.run_id]} times in {row.claims} claims"
        if row.max_attempts == 1 and starts[row.run_id] > 1 and row.attempts >= 1:
            yield f"run {row.run_id} must not run twice, and has started {starts[row.run_id]} times"
    of_a_claim = Counter((page.run_id, page.claim) for page in history.pages if page.moment is Moment.START)
    for (run_id, claim), count in of_a_claim.items():
        if count > 1:
            yield f"claim {claim} of run {run_id} has started {count} times"


def _none_side_by_side(history: History) -> Iterator[str]:
    """Two executions of a run overlap only where a host, or its master, stood still meanwhile."""
    for run_id, executions in _executions_by_run(history).items():
        for position, earlier in enumerate(executions):
            for later in executions[position + 1 :]:
                if earlier.seen_at <= later.started_at:
                    continue
                if not _was_paused(history.faults, earlier):
                    yield (
                        f"run {run_id} ran side by side: claim {earlier.claim} until "
                        f"{earlier.seen_at - later.started_at:.3f} s after claim {later.claim} had started"
                    )


def _each_second_execution_is_explained(history: History) -> Iterator[str]:
    """By a failure of its own, or by a fault that was there since the one before had started."""
    for run_id, executions in _executions_by_run(history).items():
        for earlier, later in pairwise(executions):
            faults = _faults_between(history.faults, earlier.started_at, later.started_at)
            if earlier.failed or any(fault.reruns and earlier.was_hit_by(fault) for fault in faults):
                continue
            yield (
                f"run {run_id} ran again by claim {later.claim}, and nothing had happened since claim "
                f"{earlier.claim} had started"
            )


def _what_succeeds_has_run(history: History) -> Iterator[str]:
    """A success is written after the body is done, by the claim under which it was done."""
    done_at = {(page.run_id, page.claim): page.at for page in history.pages if page.moment is Moment.END}
    for edge in history.edges:
        if edge.new == Status.SUCCESSFUL and not (
            done_at.get((edge.run_id, edge.claim), float("inf")) <= edge.at + CLOCK_SLACK_S
        ):
            yield f"run {edge.run_id} has succeeded by claim {edge.claim}, whose body was not done"


def _recovery_is_in_time(history: History) -> Iterator[str]:
    for recovery in recoveries(history):
        if recovery.late_s > LENIENCE_S:
            yield (
                f"after {recovery.fault.kind}, run {recovery.execution.run_id} was free {recovery.free_s:.2f} s "
                f"later, and {recovery.late_s:.2f} s later than may be"
            )


def recoveries(history: History) -> list[Recovery]:
    """Of each execution that was broken off, by its own last fault. Several faults may delay it."""
    left = {(edge.run_id, edge.claim): edge for edge in history.edges if edge.old == Status.RUNNING}
    claimed_at = {(edge.run_id, edge.claim): edge.at for edge in history.edges if edge.new == Status.RUNNING}
    found = []
    for run_id, executions in _executions_by_run(history).items():
        for execution in executions:
            edge = left.get((run_id, execution.claim))
            if edge is None or edge.new == Status.SUCCESSFUL or execution.failed:
                continue
            faults = _faults_between(history.faults, execution.started_at, edge.at)
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


def _nothing_is_left(history: History) -> Iterator[str]:
    yield from history.leftovers


def _work_goes_on(history: History) -> Iterator[str]:
    later = [edge.at for edge in history.edges if edge.new in FINAL_STATUSES and edge.at >= history.healed_at]
    waiting = [edge for edge in history.edges if edge.new in FINAL_STATUSES and edge.at < history.healed_at]
    if len(waiting) < len(history.rows) and (not later or min(later) > history.healed_at + PROGRESS_S):
        yield f"no run has ended within {PROGRESS_S:g} s of healing"


RULES: Mapping[str, Callable[[History], Iterator[str]]] = {
    "nothing is lost": _nothing_is_lost,
    "nothing comes from nowhere": _nothing_comes_from_nowhere,
    "every edge is legal": _edges_are_legal,
    "each run ends once, by its latest claim": _each_ends_once,
    "claims grow, and attempts have a maximum": _claims_grow,
    "no more starts than attempts": _no_more_starts_than_attempts,
    "no two executions side by side": _none_side_by_side,
    "each second execution is explained": _each_second_execution_is_explained,
    "what succeeds has run": _what_succeeds_has_run,
    "recovery is in time": _recovery_is_in_time,
    "nothing is left": _nothing_is_left,
    "work goes on": _work_goes_on,
}


def _edges_by_run(history: History) -> dict[int, list[Edge]]:
    found: dict[int, list[Edge]] = defaultdict(list)
    for edge in sorted(history.edges, key=lambda edge: edge.at):
        found[edge.run_id].append(edge)
    return found


def _executions_by_run(history: History) -> dict[int, list[Execution]]:
    """In the order of their claims."""
    pages: dict[tuple[int, int], list[Page]] = defaultdict(list)
    for page in history.pages:
        pages[page.run_id, page.claim].append(page)
    found: dict[int, list[Execution]] = defaultdict(list)
    for (run_id, claim), written in sorted(pages.items()):
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


def _faults_between(faults: Sequence[Fault], since: float, until: float) -> list[Fault]:
    return [
        fault
        for fault in faults
        if fault.at <= until + CLOCK_SLACK_S and fault.until >= since - CLOCK_SLACK_S
    ]


def _was_paused(faults: Sequence[Fault], execution: Execution) -> bool:
    return any(
        fault.pauses and execution.was_hit_by(fault)
        for fault in _faults_between(faults, execution.started_at, execution.seen_at)
    )
