"""Whatever a task returns or raises, it has an outcome, and one that can be stored."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork.executors.contract import Stop
from reproq_prefork.executors.program_output import MAX_RETRY_AFTER_S
from reproq_prefork.executors.python_outcome import outcome_of_error, outcome_of_result, storable
from reproq_prefork.model.outcome import (
    Abandoned,
    Cancelled,
    Failure,
    FailureKind,
    Interrupted,
    Outcome,
    Snoozed,
    Success,
)
from reproq_prefork.task_exceptions import Discard, Retry, Snooze, TaskTimeout


class Hostile(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


def failure_of(error: BaseException, stop: Stop | None = None) -> Failure:
    outcome = outcome_of_error(error, stop)
    assert isinstance(outcome, Failure)
    return outcome


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**100), 10**100)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
        max_leaves=10,
    )
)
def test_every_json_value_is_a_result(value: Any) -> None:
    outcome = outcome_of_result(value)
    assert isinstance(outcome, Success)
    assert json.loads(outcome.result) == value


@given(st.text())
def test_any_text_can_be_made_storable(text: str) -> None:
    safe = storable(text)
    assert "\0" not in safe
    safe.encode()
    if safe != text:
        assert any(char == "\0" or "\ud800" <= char <= "\udfff" for char in text)


@given(st.text())
def test_message_exception_and_traceback_of_a_failure_can_be_stored(text: str) -> None:
    failure = failure_of(
        type(storable(text).replace("\N{REPLACEMENT CHARACTER}", "") or "E", (ValueError,), {})(text)
    )
    for said in (failure.message, failure.exception, failure.traceback):
        assert said is not None
        assert storable(said) == said


def test_a_result_whose_own_methods_fail_is_unusable() -> None:
    class Odd(dict[str, int]):
        def items(self) -> Any:
            raise LookupError("no items")

    outcome = outcome_of_result(Odd(a=1))
    assert isinstance(outcome, Failure)
    assert outcome.kind is FailureKind.UNUSABLE_OUTPUT
    assert not outcome.retry


def test_an_exception_that_cannot_be_shown_is_still_named() -> None:
    failure = failure_of(Hostile())
    assert failure.message == "Hostile (it cannot be shown)"
    assert failure.exception == f"{__name__}.Hostile"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SystemExit(), "SystemExit"),
        (SystemExit(0), "SystemExit: 0"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_the_message_of_a_system_exit_names_its_status(error: BaseException, message: str) -> None:
    assert failure_of(error).message == message


@pytest.mark.parametrize("error", [ValueError("in cleaning up"), TaskTimeout("x"), SystemExit(0)])
def test_the_reason_to_stop_takes_precedence_over_the_exception(error: BaseException) -> None:
    assert outcome_of_error(error, Stop.CANCEL) == Cancelled(Stop.CANCEL.value)
    assert outcome_of_error(error, Stop.QUIT) == Interrupted(Stop.QUIT.value)
    assert outcome_of_error(error, Stop.LEASE) == Abandoned(Stop.LEASE.value)
    failure = failure_of(error, Stop.DEADLINE)
    assert (failure.kind, failure.message) == (FailureKind.TIMEOUT, Stop.DEADLINE.value)


def test_a_timeout_raised_by_the_task_is_an_ordinary_exception() -> None:
    assert failure_of(TaskTimeout("made up")).kind is FailureKind.FAILED


def test_a_retry_comes_within_a_year() -> None:
    assert failure_of(Retry(after=10**12)).retry_after_s == MAX_RETRY_AFTER_S


@pytest.mark.parametrize(
    ("stop", "outcome"),
    [
        (None, Snoozed(60, "not ready")),
        (Stop.DEADLINE, Snoozed(60, "not ready")),
        (Stop.QUIT, Snoozed(60, "not ready")),
        (Stop.CANCEL, Cancelled(Stop.CANCEL.value)),
        (Stop.LEASE, Abandoned(Stop.LEASE.value)),
    ],
)
def test_a_snooze_counts_unless_the_run_is_cancelled_or_lost(stop: Stop | None, outcome: Outcome) -> None:
    assert outcome_of_error(Snooze("not ready", after=60), stop) == outcome


def test_a_task_exception_raised_in_a_task_group_counts() -> None:
    assert outcome_of_error(ExceptionGroup("", [Snooze(after=1)]), None) == Snoozed(1)
    assert not failure_of(ExceptionGroup("", [Discard("no")])).retry
    assert failure_of(ExceptionGroup("", [Retry(after=9)])).retry_after_s == 9


def test_the_reason_of_a_snooze_is_bounded_and_can_be_logged() -> None:
    outcome = outcome_of_error(Snooze("\0" + "x" * 5_000, after=1), None)
    assert isinstance(outcome, Snoozed)
    assert len(outcome.reason) == 1_000
    assert "\0" not in outcome.reason
