"""The one sentence that a task's process says to its worker."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork.executors.report_json import MAX_REPORT_BYTES, dump_report, load_report
from reproq_prefork.model.limits import MAX_RESULT_BYTES
from reproq_prefork.model.outcome import (
    Abandoned,
    AttemptReport,
    Cancelled,
    Completed,
    Failure,
    FailureKind,
    Interrupted,
    Snoozed,
    Success,
)
from reproq_prefork.task_exceptions import MAX_SNOOZE_S

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
maybe = st.none() | texts
failures = st.builds(
    Failure,
    kind=st.sampled_from(FailureKind),
    message=texts,
    exception=maybe,
    traceback=maybe,
    stderr=maybe,
    retry=st.booleans(),
    retry_after_s=st.none() | st.floats(0, 1e9),
)
outcomes = (
    st.builds(Success, texts)
    | failures
    | st.builds(Cancelled, texts)
    | st.builds(Interrupted, texts)
    | st.builds(Abandoned, texts)
    | st.just(Completed())
    | st.builds(Snoozed, st.floats(0, MAX_SNOOZE_S), texts)
)


@given(outcomes, st.booleans())
def test_a_report_is_read_as_it_was_written(outcome: Success, announced: bool) -> None:
    report = AttemptReport(outcome, announced=announced)
    assert load_report(dump_report(report)) == report


@given(outcomes, st.data())
def test_a_truncated_report_is_none(outcome: Success, data: st.DataObject) -> None:
    said = dump_report(AttemptReport(outcome))
    assert load_report(said[: data.draw(st.integers(0, len(said) - 1))]) is None


@given(st.binary(max_size=40))
def test_any_bytes_are_read_without_an_exception(said: bytes) -> None:
    assert load_report(said) is None


@pytest.mark.parametrize(
    "said",
    [
        [],
        {"outcome": "Success"},
        {"outcome": "Exit", "values": {}, "announced": False},
        {"outcome": "Success", "values": {"result": None}, "announced": False},
        {"outcome": "Success", "values": {"result": "1", "more": "2"}, "announced": False},
        {"outcome": "Failure", "values": {"kind": "odd", "message": ""}, "announced": False},
        *(
            {"outcome": "Snoozed", "values": {"after_s": after_s, "reason": ""}, "announced": False}
            for after_s in (None, "1", True, -1, 1e10, 10**400)
        ),
        {"outcome": "Snoozed", "values": {"after_s": 1, "reason": None}, "announced": False},
        {
            "outcome": "Failure",
            "values": {
                "kind": "failed",
                "message": "",
                "exception": None,
                "traceback": None,
                "stderr": None,
                "retry": True,
                "retry_after_s": 10**400,
            },
            "announced": False,
        },
    ],
)
def test_json_that_is_not_a_report_is_none(said: object) -> None:
    assert load_report(json.dumps(said).encode()) is None


def test_the_largest_result_fits() -> None:
    assert len(dump_report(AttemptReport(Success('"' * MAX_RESULT_BYTES)))) < MAX_REPORT_BYTES
