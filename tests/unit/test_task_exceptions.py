"""What a task raises to say what becomes of its run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

import reproq_prefork
from reproq_prefork import django, executor
from reproq_prefork.model.limits import MAX_DELAY_S
from reproq_prefork.task_exceptions import MAX_SNOOZE_S, Discard, Retry, Snooze, verdict_of


@pytest.mark.parametrize(
    ("after", "seconds"),
    [
        (60, 60.0),
        (0, 0.0),
        (0.5, 0.5),
        (Decimal("1.5"), 1.5),
        (timedelta(minutes=2), 120.0),
        (MAX_SNOOZE_S, MAX_SNOOZE_S),
    ],
)
def test_a_snooze_has_a_number_of_seconds_or_a_timedelta(after: float | timedelta, seconds: float) -> None:
    assert Snooze(after=after).after_s == seconds


@pytest.mark.parametrize(
    "after",
    [
        -1,
        -0.001,
        MAX_SNOOZE_S + 1,
        float("nan"),
        float("inf"),
        10**400,
        timedelta(seconds=-1),
        timedelta.max,
        "60",
        None,
        [60],
        datetime(2030, 1, 1, tzinfo=UTC),
    ],
)
def test_a_snooze_with_any_other_time_is_refused_when_it_is_created(after: float) -> None:
    with pytest.raises(ValueError, match="after must be from 0 to 3153600000 seconds") as raised:
        Snooze(after=after)
    assert len(str(raised.value)) < 250


def test_a_number_that_cannot_be_written_out_is_refused_as_well() -> None:
    with pytest.raises(ValueError, match="not an object of int"):
        Snooze(after=10**5_000)


def test_a_snooze_is_never_without_a_time() -> None:
    with pytest.raises(TypeError):
        Snooze()  # type: ignore[call-arg]


@pytest.mark.parametrize("after", [-1, float("nan"), float("inf"), 10**400, "60", timedelta(seconds=-1)])
def test_a_retry_with_a_wrong_time_is_refused_too(after: float) -> None:
    with pytest.raises(ValueError, match="after must be a number of seconds, 0 or more"):
        Retry(after=after)


def test_a_run_can_be_snoozed_as_far_ahead_as_a_new_one_can_be_scheduled() -> None:
    assert MAX_SNOOZE_S == MAX_DELAY_S


@pytest.mark.parametrize("package", [reproq_prefork, django, executor])
def test_snooze_is_exported_beside_the_other_exceptions(package: object) -> None:
    for verdict in (Discard, Retry, Snooze):
        assert getattr(package, verdict.__name__) is verdict


@pytest.mark.parametrize("verdict", [Discard("no"), Retry(), Snooze(after=1)])
def test_an_exception_group_with_one_task_exception_counts_as_that_exception(verdict: Exception) -> None:
    assert verdict_of(verdict) is verdict
    assert verdict_of(ExceptionGroup("a TaskGroup", [ExceptionGroup("in another", [verdict])])) is verdict
    assert verdict_of(ExceptionGroup("two", [verdict, ValueError()])) is None
    assert verdict_of(ValueError()) is None
