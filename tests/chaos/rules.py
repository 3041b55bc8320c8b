"""What holds for every run of a storm, whatever it was asked to do. Each rule by itself, over plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain, pairwise

from reproq_prefork.model.run import FINAL_STATUSES, LEGAL_EDGES, Status
from tests.chaos.executions import CLOCK_SLACK_S, Story, faults_between
from tests.chaos.history import Answer, Moment

BEGUN_S = 0.25  # for so long what a killed worker had begun may go on: the bound for the kill of it
PROGRESS_S = 10.0  # after everything is healed
STOPPED_S, WORK_WITHIN_S = 2.0, 1.5  # after so long whoever stops for a fault has stopped
BUSY_S, BUSY_CLAIMS = 5.0, 500  # before it: there is work for such a host at any moment
ROWS_OF: dict[Answer, set[int]] = {
    Answer.OK: {1},
    Answer.HELD: {0},
    Answer.FAILED: {0},
    Answer.UNKNOWN: {0, 1},
}


def nothing_is_lost(story: Story) -> Iterator[str]:
    """What a producer was told is there is there, once and ended; what it was told is not, is not."""
    rows = Counter(row.number for row in story.history.rows)
    for told in story.history.told:
        found = rows[told.number]
        if found not in ROWS_OF[told.answer]:
            yield f"run number {told.number}: {told.answer.value}, and it is there {found} times"
    for row in story.history.rows:
        if row.status not in FINAL_STATUSES:
            yield f"run {row.run_id} is {row.status} at the end"


def nothing_comes_from_nowhere(story: Story) -> Iterator[str]:
    told = {each.number for each in story.history.told if ROWS_OF[each.answer] != {0}}
    for row in story.history.rows:
        if row.number not in told:
            yield f"run {row.run_id} (number {row.number}) was enqueued by nobody"
    for run_id in {page.run_id for page in story.history.pages} - story.rows.keys():
        yield f"run {run_id} has run, and there is no such run"


def edges_are_legal(story: Story) -> Iterator[str]:
    for run_id, edges in story.edges_of.items():
        status: str = Status.PENDING
        for edge in edges:
            if (edge.old, edge.new) not in LEGAL_EDGES:
                yield f"run {run_id} went from {edge.old} to {edge.new}"
            if edge.old != status:
                yield f"run {run_id} was {status} and went from {edge.old} to {edge.new}"
            status = edge.new


def each_ends_once(story: Story) -> Iterator[str]:
    """By the holder of the latest claim, and as the table says at the end."""
    for row in story.history.rows:
        edges = story.edges_of.get(row.run_id, [])
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


def claims_grow(story: Story) -> Iterator[str]:
    for run_id, edges in story.edges_of.items():
        claims = [edge.claim for edge in edges if edge.new == Status.RUNNING]
        if claims != list(range(1, len(claims) + 1)):
            yield f"run {run_id} was claimed as {claims}"
    for row in story.history.rows:
        if row.attempts > row.max_attempts:
            yield f"run {row.run_id} was attempted {row.attempts} times of {row.max_attempts}"


def no_more_starts_than_attempts(story: Story) -> Iterator[str]:
    """An attempt is charged before its body starts; one that is refunded has an end that says so."""
    starts = Counter(page.run_id for page in story.history.pages if page.moment is Moment.START)
    for row in story.history.rows:
        if starts[row.run_id] > row.claims:
            yield f"run {row.run_id} has started {starts[row.run_id]} times in {row.claims} claims"
        if row.max_attempts == 1 and starts[row.run_id] > 1 and row.attempts >= 1:
            yield f"run {row.run_id} must not run twice, and has started {starts[row.run_id]} times"
    of_a_claim = Counter(
        (page.run_id, page.claim) for page in story.history.pages if page.moment is Moment.START
    )
    for (run_id, claim), count in of_a_claim.items():
        if count > 1:
            yield f"claim {claim} of run {run_id} has started {count} times"


def none_side_by_side(story: Story) -> Iterator[str]:
    """Two executions of a run overlap only where a host, or its master, stood still meanwhile."""
    for run_id, executions in story.executions_of.items():
        for position, earlier in enumerate(executions):
            for later in executions[position + 1 :]:
                if earlier.seen_at <= later.started_at:
                    continue
                if not story.was_paused(earlier):
                    yield (
                        f"{story.name(run_id)} ran side by side: claim {earlier.claim} until "
                        f"{earlier.seen_at - later.started_at:.3f} s after claim {later.claim} had started"
                    )


def each_second_execution_is_explained(story: Story) -> Iterator[str]:
    """By a failure of its own that was recorded, or by a fault that was there since the one before had started."""
    for run_id, executions in story.executions_of.items():
        for earlier, later in pairwise(executions):
            if story.failed_by_itself(earlier):
                continue
            needs_connection = story.needed_its_connection(earlier)
            # A fork that was begun may write its first line after its worker is dead, until it is killed too.
            faults = faults_between(story.history.faults, earlier.started_at - BEGUN_S, later.started_at)
            if any(
                earlier.was_hit_by(fault)
                and (fault.pids or fault.until >= earlier.started_at - CLOCK_SLACK_S)
                and (fault.reruns or (fault.disconnects and needs_connection))
                for fault in faults
            ):
                continue
            yield (
                f"{story.name(run_id)} ran again by claim {later.claim}, and nothing had happened since claim "
                f"{earlier.claim} had started"
            )


def what_succeeds_has_run(story: Story) -> Iterator[str]:
    """A success is written after the body is done, by the claim under which it was done."""
    done_at = {
        (page.run_id, page.claim): page.at for page in story.history.pages if page.moment is Moment.END
    }
    for edge in story.history.edges:
        if edge.new == Status.SUCCESSFUL and not (
            done_at.get((edge.run_id, edge.claim), float("inf")) <= edge.at + CLOCK_SLACK_S
        ):
            yield f"run {edge.run_id} has succeeded by claim {edge.claim}, whose body was not done"


def who_is_hit_works_on(story: Story) -> Iterator[str]:
    """A log that nobody reads, or what others announce, keeps no host from its work, if it had some before.

    A host whose workers all run long tasks claims nothing, and works: its bodies show it.
    """
    faults = [
        fault
        for fault in story.history.faults
        if fault.keeps_working and fault.until - fault.at >= STOPPED_S + WORK_WITHIN_S
    ]
    if not faults:
        return
    claims = [edge for edge in story.history.edges if edge.new == Status.RUNNING]
    for fault in faults:
        of_host = [edge.at for edge in claims if fault.host in (None, edge.host)]
        before = sum(fault.at - BUSY_S <= at < fault.at for at in of_host)
        if before < BUSY_CLAIMS:
            continue
        bodies = (page.at for page in story.history.pages if fault.host in (None, page.host))
        if not any(fault.until - WORK_WITHIN_S <= at < fault.until for at in chain(of_host, bodies)):
            yield (
                f"{fault.kind}: host {fault.host or 'any'} has neither claimed nor run anything in the last "
                f"{WORK_WITHIN_S:g} s of {fault.until - fault.at:.1f} s"
            )


def nothing_is_left(story: Story) -> Iterator[str]:
    yield from story.history.leftovers


def work_goes_on(story: Story) -> Iterator[str]:
    ends = [edge.at for edge in story.history.edges if edge.new in FINAL_STATUSES]
    later = [at for at in ends if at >= story.history.healed_at]
    if len(ends) - len(later) < len(story.history.rows) and (
        not later or min(later) > story.history.healed_at + PROGRESS_S
    ):
        yield f"no run has ended within {PROGRESS_S:g} s of healing"
