from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork.model.outcome import (
    Abandoned,
    Failure,
    FailureKind,
    Interrupted,
    Outcome,
    Snoozed,
    Success,
)
from reproq_prefork.model.run import FINAL_STATUSES, LEGAL_EDGES, ClaimedRun, Status
from reproq_prefork.model.settlement import RetryPolicy, error_entry, settle

POLICY = RetryPolicy(base_s=5, max_s=3600)


def a_run(attempt: int = 1, max_attempts: int = 3) -> ClaimedRun:
    return ClaimedRun(
        id=7,
        claim=11,
        payload="{}",
        spec_hash="0" * 64,
        task_path=None,
        queue_name="default",
        attempt=attempt,
        max_attempts=max_attempts,
        timeout_s=None,
    )


def a_failure(*, retry: bool = True, retry_after_s: float | None = None) -> Failure:
    return Failure(FailureKind.FAILED, "no", retry=retry, retry_after_s=retry_after_s)


FAILURES = st.builds(
    Failure,
    st.sampled_from(FailureKind),
    st.text(max_size=5),
    retry=st.booleans(),
    retry_after_s=st.none() | st.floats(0, 1e6),
)
OUTCOMES: st.SearchStrategy[Outcome] = (
    st.just(Success("null"))
    | FAILURES
    | st.just(Interrupted("told"))
    | st.just(Abandoned("lease"))
    | st.builds(Snoozed, st.floats(0, 1e9))
)
POLICIES = st.builds(
    RetryPolicy, st.floats(0, 100), st.floats(0, 1e4), max_attempts_ceiling=st.none() | st.integers(1, 5)
)
DRAWS = st.floats(0, 1, exclude_max=True)


def test_a_result_is_final() -> None:
    settlement = settle(a_run(), Success("42"), POLICY, 0.5)
    assert settlement is not None
    assert (settlement.run_id, settlement.claim) == (7, 11)
    assert (settlement.status, settlement.result, settlement.error) == (Status.SUCCESSFUL, "42", None)


def test_a_failure_with_attempts_left_waits_for_its_backoff() -> None:
    settlement = settle(a_run(attempt=2), a_failure(), POLICY, 0.5)
    assert settlement is not None
    assert (settlement.status, settlement.delay_s, settlement.refunded) == (Status.PENDING, 5.0, False)
    assert settlement.error == {"kind": "failed", "message": "no"}


def test_a_task_may_decide_when_it_is_tried_again() -> None:
    settlement = settle(a_run(), a_failure(retry_after_s=90), POLICY, 0.5)
    assert settlement is not None
    assert (settlement.status, settlement.delay_s) == (Status.PENDING, 90)


def test_zero_seconds_is_a_delay_too() -> None:
    settlement = settle(a_run(), a_failure(retry_after_s=0), POLICY, 0.5)
    assert settlement is not None
    assert settlement.delay_s == 0


@pytest.mark.parametrize(
    ("run", "failure", "ceiling"),
    [
        (a_run(attempt=3), a_failure(), None),
        (a_run(attempt=3), a_failure(retry_after_s=1), None),
        (a_run(attempt=1), a_failure(retry=False), None),
        (a_run(attempt=2), a_failure(), 2),
        (a_run(attempt=1, max_attempts=1), a_failure(), 5),
        (a_run(attempt=9), a_failure(), None),
    ],
)
def test_a_failure_is_final_if_no_attempt_is_left_or_none_can_help(
    run: ClaimedRun, failure: Failure, ceiling: int | None
) -> None:
    settlement = settle(run, failure, RetryPolicy(5, 3600, max_attempts_ceiling=ceiling), 0.5)
    assert settlement is not None
    assert (settlement.status, settlement.delay_s) == (Status.FAILED, None)


def test_an_interrupted_run_is_handed_back_without_a_charge() -> None:
    settlement = settle(a_run(attempt=3), Interrupted("told to stop"), POLICY, 0.5)
    assert settlement is not None
    assert (settlement.status, settlement.refunded, settlement.delay_s) == (Status.PENDING, True, None)
    assert settlement.error is None


@pytest.mark.parametrize(("max_attempts", "ceiling"), [(1, None), (3, 1)])
def test_an_interrupted_run_that_may_start_once_only_has_failed(
    max_attempts: int, ceiling: int | None
) -> None:
    policy = RetryPolicy(5, 3600, max_attempts_ceiling=ceiling)
    settlement = settle(a_run(max_attempts=max_attempts), Interrupted("told to stop"), policy, 0.5)
    assert settlement is not None
    assert settlement.status is Status.FAILED
    assert settlement.error == {"kind": "shutdown", "message": "told to stop"}


def test_a_run_whose_lease_has_ended_is_not_written() -> None:
    assert settle(a_run(), Abandoned("lease"), POLICY, 0.5) is None


@given(st.integers(1, 12), st.integers(1, 12), OUTCOMES, POLICIES, DRAWS)
def test_every_settlement_is_legal_and_ends_once_attempts_are_used_up(
    attempt: int, max_attempts: int, outcome: Outcome, policy: RetryPolicy, draw: float
) -> None:
    run = a_run(attempt, max_attempts)
    settlement = settle(run, outcome, policy, draw)
    if settlement is None:
        assert isinstance(outcome, Abandoned)
        return
    assert (settlement.run_id, settlement.claim) == (run.id, run.claim)
    assert (Status.RUNNING, settlement.status) in LEGAL_EDGES
    allowed = min(max_attempts, policy.max_attempts_ceiling or max_attempts)
    if attempt >= allowed:
        assert settlement.status in FINAL_STATUSES or settlement.refunded
    if settlement.refunded:
        assert allowed > 1 or isinstance(outcome, Snoozed), "what may start once only is never started again"
        assert isinstance(outcome, Interrupted | Snoozed)
    if isinstance(outcome, Snoozed):
        assert (settlement.status, settlement.refunded) == (Status.PENDING, True)
        assert (settlement.delay_s, settlement.error) == (outcome.after_s, None)
    elif settlement.status is Status.PENDING and not settlement.refunded:
        assert settlement.delay_s is not None
        assert settlement.delay_s >= 0
    else:
        assert settlement.delay_s is None
    assert (settlement.result is not None) == (settlement.status is Status.SUCCESSFUL)
    assert (settlement.error is not None) == (
        isinstance(outcome, Failure) or settlement.status is Status.FAILED
    )
    json.dumps(settlement.error)


def test_an_error_entry_leaves_out_missing_values() -> None:
    assert error_entry(Failure(FailureKind.KILLED, "killed by signal 9")) == {
        "kind": "killed",
        "message": "killed by signal 9",
    }
    assert error_entry(Failure(FailureKind.FAILED, "m", "E", "t", "s")) == {
        "kind": "failed",
        "message": "m",
        "exception": "E",
        "traceback": "t",
        "stderr": "s",
    }
