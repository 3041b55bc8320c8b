"""The checker of the kill storm against forged histories: each lie is caught by its rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos.checker import violations
from tests.chaos.executions import Story
from tests.chaos.history import Answer, Edge, Fault, History, Moment, Page, Row, Told
from tests.chaos.kinds import LEASE_S, SWEEP_S
from tests.chaos.recovery import LENIENCE_S, recoveries
from tests.support.fakes.forged import broken_rules, is_claim_of, is_end_of, with_one, without

KILL = Fault("kill a worker", at=12.0, until=12.0, recovery_s=0.25)
FREEZE = Fault("stop a host", at=20.0, until=26.0, recovery_s=7.0, pauses=True)
CUT = Fault("cut off a host", at=30.0, until=36.0, recovery_s=7.0)

TOO_LONG_S = LEASE_S + SWEEP_S + LENIENCE_S + 0.1

# Run 1 succeeds at once. Run 2 is killed with its worker, and done again. Run 3 fails, and is tried again. Run 4
# is refused, and what becomes of run 5 its producer never heard.
GOOD = History(
    told=(
        Told(1, Answer.OK, 10.0),
        Told(2, Answer.OK, 10.0),
        Told(3, Answer.OK, 10.0),
        Told(4, Answer.FAILED, 10.0),
        Told(5, Answer.UNKNOWN, 10.0),
    ),
    pages=(
        Page(Moment.START, 101, 1, 50, 11.0),
        Page(Moment.END, 101, 1, 50, 11.1),
        Page(Moment.START, 102, 1, 51, 11.5),
        Page(Moment.START, 102, 2, 52, 12.2),
        Page(Moment.END, 102, 2, 52, 12.3),
        Page(Moment.START, 103, 1, 53, 13.0),
        Page(Moment.FAIL, 103, 1, 53, 13.1),
        Page(Moment.START, 103, 2, 54, 14.0),
        Page(Moment.END, 103, 2, 54, 14.1),
    ),
    edges=(
        Edge(101, "PENDING", "RUNNING", 1, 10.9),
        Edge(101, "RUNNING", "SUCCESSFUL", 1, 11.2),
        Edge(102, "PENDING", "RUNNING", 1, 11.4),
        Edge(102, "RUNNING", "PENDING", 1, 12.05, "worker_lost"),
        Edge(102, "PENDING", "RUNNING", 2, 12.1),
        Edge(102, "RUNNING", "SUCCESSFUL", 2, 12.4),
        Edge(103, "PENDING", "RUNNING", 1, 12.9),
        Edge(103, "RUNNING", "PENDING", 1, 13.2, "failed"),
        Edge(103, "PENDING", "RUNNING", 2, 13.9),
        Edge(103, "RUNNING", "SUCCESSFUL", 2, 14.2),
    ),
    rows=(
        Row(101, 1, "SUCCESSFUL", 1, 3, 1),
        Row(102, 2, "SUCCESSFUL", 2, 3, 2),
        Row(103, 3, "SUCCESSFUL", 2, 3, 2),
    ),
    faults=(KILL, FREEZE, CUT),
    healed_at=14.0,
)


def test_a_good_history_has_no_violations() -> None:
    assert violations(GOOD) == []
    (recovery,) = recoveries(Story(GOOD))
    assert recovery.fault is KILL
    assert (round(recovery.free_s, 3), round(recovery.again_s or 0, 3)) == (0.05, 0.1)


def test_a_worker_may_be_killed_before_the_task_that_it_forks_writes_its_first_line() -> None:
    killed = replace(GOOD, faults=(replace(KILL, at=11.4, until=11.4, pids=frozenset({51})), FREEZE, CUT))
    assert "each second execution is explained" not in {violation.rule for violation in violations(killed)}


LIES: dict[str, tuple[str, History]] = {
    "an acknowledged run is gone": (
        "nothing is lost",
        replace(
            GOOD,
            rows=without(GOOD.rows, lambda row: row.run_id == 101),
            edges=without(GOOD.edges, lambda edge: edge.run_id == 101),
            pages=without(GOOD.pages, lambda page: page.run_id == 101),
        ),
    ),
    "an acknowledged run is there twice": (
        "nothing is lost",
        replace(GOOD, rows=(*GOOD.rows, Row(109, 1, "SUCCESSFUL", 1, 3, 1))),
    ),
    "a refused run is there": (
        "nothing is lost",
        replace(GOOD, rows=(*GOOD.rows, Row(104, 4, "SUCCESSFUL", 1, 3, 1))),
    ),
    "a run is left RUNNING": (
        "nothing is lost",
        replace(
            GOOD,
            rows=with_one(GOOD.rows, lambda row: row.run_id == 101, status="RUNNING"),
            edges=without(GOOD.edges, is_end_of(101)),
        ),
    ),
    "a task has run that no producer enqueued": (
        "no run comes from nowhere",
        replace(GOOD, pages=(*GOOD.pages, Page(Moment.START, 999, 1, 60, 13.0))),
    ),
    "a row exists that no producer enqueued": (
        "no run comes from nowhere",
        replace(GOOD, rows=(*GOOD.rows, Row(108, 77, "SUCCESSFUL", 1, 3, 1))),
    ),
    "a final status is left again": (
        "every edge is legal",
        replace(GOOD, edges=(*GOOD.edges, Edge(101, "SUCCESSFUL", "PENDING", 1, 15.0))),
    ),
    "a change begins where the one before did not end": (
        "every edge is legal",
        replace(GOOD, edges=without(GOOD.edges, lambda edge: edge.run_id == 102 and edge.new == "PENDING")),
    ),
    "a run ends twice": (
        "each run ends once, by its latest claim",
        replace(GOOD, edges=(*GOOD.edges, Edge(102, "RUNNING", "SUCCESSFUL", 2, 12.5))),
    ),
    "a stale claim ends a run": (
        "each run ends once, by its latest claim",
        replace(GOOD, edges=with_one(GOOD.edges, is_end_of(102), claim=1)),
    ),
    "the table differs from its history": (
        "each run ends once, by its latest claim",
        replace(GOOD, rows=with_one(GOOD.rows, lambda row: row.run_id == 101, status="FAILED")),
    ),
    "a claim is given twice": (
        "claims grow, and attempts have a maximum",
        replace(
            GOOD,
            edges=with_one(
                GOOD.edges,
                lambda edge: edge.run_id == 103 and edge.new == "RUNNING" and edge.claim == 2,
                claim=1,
            ),
        ),
    ),
    "a run is attempted too often": (
        "claims grow, and attempts have a maximum",
        replace(GOOD, rows=with_one(GOOD.rows, lambda row: row.run_id == 103, attempts=4)),
    ),
    "one claim starts twice": (
        "no more starts than attempts",
        replace(GOOD, pages=(*GOOD.pages, Page(Moment.START, 101, 1, 70, 11.05))),
    ),
    "a run that must not run twice does": (
        "no more starts than attempts",
        replace(GOOD, rows=with_one(GOOD.rows, lambda row: row.run_id == 102, max_attempts=1, attempts=1)),
    ),
    "two executions overlap": (
        "no two executions side by side",
        replace(GOOD, pages=(*GOOD.pages, Page(Moment.END, 102, 1, 51, 12.9))),
    ),
    "a run runs again without a reason": (
        "each second execution is explained",
        replace(GOOD, faults=without(GOOD.faults, lambda fault: fault is KILL)),
    ),
    "a run runs again because of a fault on another host": (
        "each second execution is explained",
        replace(GOOD, faults=(replace(KILL, host="elsewhere"), FREEZE, CUT)),
    ),
    "a run runs again because of a fault of another worker": (
        "each second execution is explained",
        replace(GOOD, faults=(replace(KILL, pids=frozenset({77})), FREEZE, CUT)),
    ),
    "a run runs again because of a fault of its worker long before its start": (
        "each second execution is explained",
        replace(GOOD, faults=(replace(KILL, at=11.1, until=11.1, pids=frozenset({51})), FREEZE, CUT)),
    ),
    "a run runs again because of a fault of its host that ended before its start": (
        "each second execution is explained",
        replace(GOOD, faults=(replace(KILL, at=11.4, until=11.4, pids=frozenset()), FREEZE, CUT)),
    ),
    "a run runs again because of a fault that is not a reason": (
        "each second execution is explained",
        replace(GOOD, faults=(replace(KILL, reruns=False), FREEZE, CUT)),
    ),
    "a run that failed is recorded as one whose worker was lost": (
        "each second execution is explained",
        replace(
            GOOD,
            edges=with_one(GOOD.edges, lambda edge: edge.error_kind == "failed", error_kind="worker_lost"),
        ),
    ),
    "a run succeeds although its task was interrupted": (
        "a run that succeeds was executed",
        replace(GOOD, pages=without(GOOD.pages, lambda page: page == Page(Moment.END, 101, 1, 50, 11.1))),
    ),
    "a run succeeds before its task has ended": (
        "a run that succeeds was executed",
        replace(GOOD, edges=with_one(GOOD.edges, is_end_of(101), at=11.02)),
    ),
    "a recovery takes too long": (
        "recovery is in time",
        replace(
            GOOD,
            edges=tuple(
                replace(edge, at=edge.at + 5) if edge.run_id == 102 and edge.at > 12 else edge
                for edge in GOOD.edges
            ),
            pages=tuple(
                replace(page, at=page.at + 5) if page.run_id == 102 and page.at > 12 else page
                for page in GOOD.pages
            ),
        ),
    ),
    "a run is claimed and never started": (
        "no row stays RUNNING without an attempt that runs",
        replace(
            GOOD,
            edges=with_one(GOOD.edges, is_claim_of(101), at=11.0 - TOO_LONG_S),
        ),
    ),
    "a run is done and never recorded": (
        "no row stays RUNNING without an attempt that runs",
        replace(GOOD, edges=with_one(GOOD.edges, is_end_of(101), at=11.1 + TOO_LONG_S)),
    ),
    "a run is RUNNING by an unknown claim until its worker dies": (
        "no row stays RUNNING without an attempt that runs",
        replace(
            GOOD,
            rows=(*GOOD.rows, Row(105, 5, "SUCCESSFUL", 1, 3, 2)),
            pages=(
                *GOOD.pages,
                Page(Moment.START, 105, 2, 55, 11.2 + TOO_LONG_S),
                Page(Moment.END, 105, 2, 55, 11.3 + TOO_LONG_S),
            ),
            edges=(
                *GOOD.edges,
                Edge(105, "PENDING", "RUNNING", 1, 11.0),
                Edge(105, "RUNNING", "PENDING", 1, 11.0 + TOO_LONG_S),
                Edge(105, "PENDING", "RUNNING", 2, 11.1 + TOO_LONG_S),
                Edge(105, "RUNNING", "SUCCESSFUL", 2, 11.4 + TOO_LONG_S),
            ),
        ),
    ),
    "a process is left": ("nothing is left", replace(GOOD, leftovers=("process 4711 is left",))),
    "nothing goes on": (
        "work goes on",
        replace(
            GOOD,
            healed_at=12.0,
            edges=tuple(replace(edge, at=edge.at + (20 if edge.at > 12 else 0)) for edge in GOOD.edges),
        ),
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_each_forged_history_breaks_its_rule(lie: str) -> None:
    rule, history = LIES[lie]
    assert rule in broken_rules(history)


@pytest.mark.parametrize(("fault", "allowed"), [(FREEZE, True), (CUT, False), (KILL, False)])
def test_only_a_paused_process_allows_two_executions_at_once(fault: Fault, allowed: bool) -> None:
    """A partition does not: a disconnected host ends its tasks before another host may start them."""
    during = replace(fault, at=12.0, until=13.0)
    history = replace(GOOD, pages=(*GOOD.pages, Page(Moment.END, 102, 1, 51, 12.9)), faults=(during,))
    assert ("no two executions side by side" in broken_rules(history)) is not allowed


@pytest.mark.parametrize(
    ("stalls", "host", "allowed"),
    [(True, None, True), (True, "a", True), (True, "b", False), (False, None, False), (False, "a", False)],
)
def test_a_run_may_wait_while_the_server_refuses_everything_but_for_no_other_fault(
    stalls: bool, host: str | None, allowed: bool
) -> None:
    fault = Fault("crash the server", at=11.1, until=11.3, recovery_s=5.0, host=host, stalls=stalls)
    slow = replace(
        GOOD,
        edges=[
            replace(edge, at=11.1 + TOO_LONG_S) if is_end_of(101)(edge) else replace(edge, host="a")
            for edge in GOOD.edges
        ],
        faults=(*GOOD.faults, fault),
    )
    broken = "no row stays RUNNING without an attempt that runs" in broken_rules(slow)
    assert broken is not allowed


@pytest.mark.parametrize(
    ("before", "meanwhile", "beats", "elsewhere", "allowed"),
    [
        (1000, 0, 0, 200, False),
        (1000, 1, 0, 200, True),
        (1000, 0, 1, 200, True),  # it runs a long task
        (1000, 0, 0, 20, True),  # there is no work for anybody
        (3, 0, 0, 200, True),
    ],
)
def test_a_host_with_an_unread_log_must_keep_working(
    before: int, meanwhile: int, beats: int, elsewhere: int, allowed: bool
) -> None:
    fault = Fault("leave a log unread", at=20.0, until=24.0, recovery_s=1.0, host="a", keeps_working=True)
    claims = [("a", 19.0)] * before + [("a", 23.0)] * meanwhile + [("b", 23.5)] * elsewhere
    edges = [
        Edge(1000 + place, "PENDING", "RUNNING", 1, at, host=host) for place, (host, at) in enumerate(claims)
    ]
    pages = [Page(Moment.BEAT, 101, 1, 50, 23.0, host="a")] * beats
    pages += [Page(Moment.BEAT, 102, 1, 50, 23.0, host="b")]
    history = replace(
        GOOD,
        faults=(*GOOD.faults, fault),
        edges=(*GOOD.edges, *edges),
        pages=(*GOOD.pages, *pages),
    )
    assert ("a harmless fault stops no work" in broken_rules(history)) is not allowed


def test_the_code_of_a_task_may_run_for_any_time() -> None:
    """A run that shows signs of life is not a row without a holder."""
    end = 11.1 + 10 * TOO_LONG_S
    long = replace(
        GOOD,
        pages=with_one(GOOD.pages, lambda page: page.run_id == 101 and page.moment is Moment.END, at=end),
        edges=with_one(GOOD.edges, is_end_of(101), at=end + 0.1),
    )
    assert violations(long) == []


def test_an_enqueue_without_an_answer_may_have_worked_or_not() -> None:
    row = Row(105, 5, "SUCCESSFUL", 1, 3, 1)
    there = replace(
        GOOD,
        rows=(*GOOD.rows, row),
        pages=(
            *GOOD.pages,
            Page(Moment.START, 105, 1, 55, 14.02),
            Page(Moment.BEAT, 105, 1, 55, 14.04),
            Page(Moment.END, 105, 1, 55, 14.06),
        ),
        edges=(
            *GOOD.edges,
            Edge(105, "PENDING", "RUNNING", 1, 14.0),
            Edge(105, "RUNNING", "SUCCESSFUL", 1, 14.1),
        ),
    )
    assert violations(there) == []
