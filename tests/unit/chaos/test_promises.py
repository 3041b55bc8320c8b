"""The checker of the kill storm against forged histories of runs that ask for more than to be run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.chaos.checker import violations
from tests.chaos.history import (
    Answer,
    Cancel,
    Edge,
    Effect,
    Fault,
    History,
    KeyAnswer,
    Moment,
    Page,
    Row,
    Told,
)
from tests.chaos.kinds import LEASE_S, SWEEP_S
from tests.chaos.recovery import LENIENCE_S
from tests.support.fakes.forged import broken_rules, is_claim_of, is_end_of, with_one, without

TOO_LONG_S = LEASE_S + SWEEP_S + LENIENCE_S + 0.1


def run_to(run_id: int, status: str, since: float, *, claim: int = 1, kind: str = "") -> Sequence[Edge]:
    """The edges of one claim: taken at `since`, ended 0.4 s later."""
    return (
        Edge(run_id, "PENDING", "RUNNING", claim, since),
        Edge(run_id, "RUNNING", status, claim, since + 0.4, kind),
    )


def body(run_id: int, since: float, last: Moment, *, claim: int = 1) -> Sequence[Page]:
    """What its body wrote: from 0.1 s after the claim to 0.1 s before the end."""
    return (
        Page(Moment.START, run_id, claim, 1000 + run_id, since + 0.1),
        Page(last, run_id, claim, 1000 + run_id, since + 0.3),
    )


# 1 is atomic. 2 is atomic and fails. 3 is cancelled as it runs, 4 as it waits, and 5 is done before its worker
# hears of the cancel. 6 and 9 have one key, one after the other; 7 is not added, since 6 holds the key. 10 asks
# to be run again 2 s later. 11 wants too much memory, twice. 12 is odd.
GOOD = History(
    told=(
        *(Told(number, Answer.OK, 9.0) for number in (1, 2, 3, 4, 5, 6, 9, 10, 11, 12)),
        Told(7, Answer.HELD, 10.3),
    ),
    rows=(
        Row(101, 1, "SUCCESSFUL", 1, 3, 1, is_atomic=True),
        Row(102, 2, "FAILED", 1, 1, 1, is_atomic=True),
        Row(103, 3, "CANCELLED", 1, 3, 1),
        Row(104, 4, "CANCELLED", 0, 3, 0),
        Row(105, 5, "SUCCESSFUL", 1, 3, 1),
        Row(106, 6, "SUCCESSFUL", 1, 3, 1, key="k", added_at=10.0),
        Row(109, 9, "SUCCESSFUL", 1, 3, 1, key="k", added_at=10.7),
        Row(110, 10, "SUCCESSFUL", 2, 3, 2, retry_after_s=2.0),
        Row(111, 11, "FAILED", 2, 2, 2, hoards=True, memory_errors=2),
        Row(112, 12, "FAILED", 1, 3, 1, is_odd=True),
    ),
    pages=(
        *body(101, 10.0, Moment.END),
        *body(102, 10.0, Moment.FAIL),
        *body(103, 10.0, Moment.BEAT),
        *body(105, 10.0, Moment.END),
        *body(106, 10.2, Moment.END),
        *body(109, 11.0, Moment.END),
        *body(110, 10.0, Moment.FAIL),
        *body(110, 12.4, Moment.END, claim=2),
        *body(111, 10.0, Moment.FAIL),
        *body(111, 11.0, Moment.FAIL, claim=2),
    ),
    edges=(
        *run_to(101, "SUCCESSFUL", 10.0),
        *run_to(102, "FAILED", 10.0, kind="unusable_output"),
        *run_to(103, "CANCELLED", 10.0, kind="cancelled"),
        Edge(104, "PENDING", "CANCELLED", 0, 10.0, "cancelled"),
        *run_to(105, "SUCCESSFUL", 10.0),
        *run_to(106, "SUCCESSFUL", 10.2),
        *run_to(109, "SUCCESSFUL", 11.0),
        *run_to(110, "PENDING", 10.0, kind="failed"),
        *run_to(110, "SUCCESSFUL", 12.4, claim=2),
        *run_to(111, "PENDING", 10.0, kind="failed"),
        *run_to(111, "FAILED", 11.0, claim=2, kind="failed"),
        *run_to(112, "FAILED", 10.0, kind="unreadable"),
    ),
    faults=(),
    healed_at=10.1,
    effects=(Effect(101, 1),),
    cancels=(
        Cancel(103, 10.2, 10.25, "RUNNING"),
        Cancel(104, 9.98, 10.02, "CANCELLED"),
        Cancel(105, 10.3, 10.32, "RUNNING"),
        Cancel(105, 10.5, 10.52, "SUCCESSFUL"),
        Cancel(101, 10.0, 10.1, "UNKNOWN"),
    ),
    key_answers=(
        KeyAnswer(6, "k", 106, True, 9.9, 10.1),
        KeyAnswer(7, "k", 106, False, 10.2, 10.3),
        KeyAnswer(9, "k", 109, True, 10.6, 10.8),
    ),
)


def test_a_good_history_has_no_violations() -> None:
    assert violations(GOOD) == []


def with_row(run_id: int, **changes: object) -> History:
    return replace(GOOD, rows=with_one(GOOD.rows, lambda row: row.run_id == run_id, **changes))


def moved(run_id: int, seconds: float) -> History:
    """All that has come of a run is so much later."""
    return replace(
        GOOD,
        edges=[replace(each, at=each.at + seconds * (each.run_id == run_id)) for each in GOOD.edges],
        pages=[replace(each, at=each.at + seconds * (each.run_id == run_id)) for each in GOOD.pages],
    )


EFFECTS = "an atomic task's effects exist once, with its success"
CANCELS = "a cancelled run does not run again"
KEYS = "one live run per key"
WAITS = "a Retry waits as long as it says"
MEMORY = "only tasks that ask for too much memory run out of it"

LIES: dict[str, tuple[str, History]] = {
    "an effect is gone": (EFFECTS, replace(GOOD, effects=())),
    "an effect is there twice": (EFFECTS, replace(GOOD, effects=(*GOOD.effects, Effect(101, 1)))),
    "an effect is of a claim that was lost": (EFFECTS, replace(GOOD, effects=(Effect(101, 2),))),
    "a run that failed has an effect": (EFFECTS, replace(GOOD, effects=(*GOOD.effects, Effect(102, 1)))),
    "an effect is of no run": (EFFECTS, replace(GOOD, effects=(*GOOD.effects, Effect(199, 1)))),
    "a run is PENDING again after its cancel": (
        CANCELS,
        replace(
            GOOD,
            edges=(
                *without(GOOD.edges, is_end_of(103)),
                Edge(103, "RUNNING", "PENDING", 1, 10.4, "failed"),
                Edge(103, "PENDING", "CANCELLED", 1, 10.6),
            ),
        ),
    ),
    "a run is claimed after its cancel": (
        CANCELS,
        replace(GOOD, edges=(*GOOD.edges, Edge(104, "PENDING", "RUNNING", 1, 10.2))),
    ),
    "a run goes on for long after its cancel": (
        CANCELS,
        replace(GOOD, edges=with_one(GOOD.edges, is_end_of(103), at=10.25 + TOO_LONG_S)),
    ),
    "a run whose cancel was answered RUNNING is FAILED with its worker": (
        CANCELS,
        replace(
            with_row(103, status="FAILED"),
            edges=with_one(GOOD.edges, is_end_of(103), new="FAILED", error_kind="worker_lost"),
        ),
    ),
    "a run whose cancel was answered CANCELLED succeeds": (
        CANCELS,
        replace(GOOD, edges=with_one(GOOD.edges, is_end_of(104), new="SUCCESSFUL")),
    ),
    "a run that was reported as ended has not ended": (CANCELS, moved(105, 0.5)),
    "two runs of a key are live": (
        KEYS,
        replace(GOOD, edges=with_one(GOOD.edges, is_end_of(106), at=10.75)),
    ),
    "a run that never ends holds its key": (
        KEYS,
        replace(GOOD, edges=without(GOOD.edges, is_end_of(106))),
    ),
    "a producer gets a run of another key": (KEYS, with_row(109, key="other")),
    "a producer gets a run that has ended": (
        KEYS,
        replace(
            GOOD, key_answers=with_one(GOOD.key_answers, lambda each: each.number == 7, sent_at=10.7, at=10.8)
        ),
    ),
    "a producer gets a run that does not exist yet": (
        KEYS,
        replace(GOOD, key_answers=with_one(GOOD.key_answers, lambda each: each.number == 7, run_id=109)),
    ),
    "a producer gets the run of another as one that it added": (
        KEYS,
        replace(GOOD, key_answers=with_one(GOOD.key_answers, lambda each: each.number == 7, created=True)),
    ),
    "a run is added although its producer got another": (
        "nothing is lost",
        replace(GOOD, rows=(*GOOD.rows, Row(107, 7, "CANCELLED", 0, 3, 0))),
    ),
    "a run waits less than it asked to": (
        WAITS,
        replace(
            GOOD,
            edges=with_one(GOOD.edges, is_claim_of(110, 2), at=12.2),
        ),
    ),
    "a run that asks for little lacks memory": (MEMORY, with_row(106, memory_errors=1)),
    "a run gets more memory than it may have": (MEMORY, with_row(111, status="SUCCESSFUL")),
    "a death for lack of memory is not recorded": (MEMORY, with_row(111, memory_errors=1)),
    "an odd row succeeds": ("an odd row fails alone", with_row(112, status="SUCCESSFUL")),
    "an odd row stays": ("nothing is lost", with_row(112, status="PENDING")),
}


@pytest.mark.parametrize("lie", LIES)
def test_each_forged_history_breaks_its_rule(lie: str) -> None:
    rule, history = LIES[lie]
    assert rule in broken_rules(history)


def test_a_cancel_may_wait_while_the_server_refuses_everything() -> None:
    stall = Fault("crash the server", at=11.0, until=16.0, recovery_s=5.0, stalls=True)
    late = replace(GOOD, edges=with_one(GOOD.edges, is_end_of(103), at=10.25 + TOO_LONG_S))
    assert CANCELS not in broken_rules(replace(late, faults=(stall,)))


def test_a_retry_interrupted_by_a_fault_need_not_wait() -> None:
    """Its worker died before the wait was recorded."""
    soon = replace(
        GOOD,
        edges=[
            replace(edge, error_kind="worker_lost")
            if edge.run_id == 110 and edge.new == "PENDING"
            else replace(edge, at=10.5)
            if is_claim_of(110, 2)(edge)
            else edge
            for edge in GOOD.edges
        ],
    )
    assert WAITS not in broken_rules(soon)
