"""Whether a history may be: each rule by itself, over plain data. No log is trusted about what another knows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from reproq_prefork.task_run import FINAL_STATUSES, LEGAL_EDGES, Status
from tests.chaos.history import Answer, Edge, Fault, History, Moment, Page

PROGRESS_S = 10.0  # after everything is healed
CLOCK_SLACK_S = 0.05  # between the clocks of the server and of the processes, and to write a line


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str
    what: str


@dataclass(frozen=True, slots=True)
class Execution:
    """One run of a body. `ended_at` None: it wrote no last line, so it was killed, nobody knows when."""

    run_id: int
    claim: int
    started_at: float
    ended_at: float | None
    failed: bool


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
                if earlier.ended_at is None or earlier.ended_at <= later.started_at:
                    continue
                if not _was_paused(history.faults, earlier.started_at, earlier.ended_at):
                    yield (
                        f"run {run_id} ran side by side: claim {earlier.claim} until "
                        f"{earlier.ended_at - later.started_at:.3f} s after claim {later.claim} had started"
                    )


def _each_second_execution_is_explained(history: History) -> Iterator[str]:
    """By a failure of its own, or by a fault that was there since the one before had started."""
    for run_id, executions in _executions_by_run(history).items():
        for earlier, later in pairwise(executions):
            if earlier.failed or _faults_between(history.faults, earlier.started_at, later.started_at):
                continue
            yield (
                f"run {run_id} ran again by claim {later.claim}, and nothing had happened since claim "
                f"{earlier.claim} had started"
            )


def _recovery_is_in_time(history: History) -> Iterator[str]:
    for fault, seconds in recoveries(history):
        if seconds > fault.recovery_s:
            yield f"after {fault.kind} it took {seconds:.2f} s, {fault.recovery_s:g} s are allowed"


def recoveries(history: History) -> list[tuple[Fault, float]]:
    """Of each execution that a fault has ended: the fault, and the seconds from it to the next claim."""
    claimed_at = {(edge.run_id, edge.claim): edge.at for edge in history.edges if edge.new == Status.RUNNING}
    found = []
    for run_id, executions in _executions_by_run(history).items():
        for earlier, later in pairwise(executions):
            if earlier.ended_at is not None:
                continue
            again_at = claimed_at.get((run_id, later.claim), later.started_at)
            causes = _faults_between(history.faults, earlier.started_at, again_at)
            if causes:
                # The last one to be over: what an earlier one has begun, it may have begun anew.
                cause = max(causes, key=lambda fault: fault.until)
                found.append((cause, max(0.0, again_at - cause.until)))
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
        last = [page for page in written if page.moment is not Moment.START]
        if starts:
            failed = any(page.moment is Moment.FAIL for page in last)
            ended_at = max((page.at for page in last), default=None)
            found[run_id].append(Execution(run_id, claim, min(starts), ended_at, failed))
    return found


def _faults_between(faults: Sequence[Fault], since: float, until: float) -> list[Fault]:
    return [
        fault
        for fault in faults
        if fault.at <= until + CLOCK_SLACK_S and fault.until >= since - CLOCK_SLACK_S
    ]


def _was_paused(faults: Sequence[Fault], since: float, until: float) -> bool:
    return any(fault.pauses for fault in _faults_between(faults, since, until))
