from __future__ import annotations

import itertools

import pytest

from tests.support.waiting import wait_until


def test_wait_until_returns_the_first_true_value() -> None:
    numbers = itertools.count()
    assert wait_until(lambda: next(numbers) // 3, timeout_s=5, describe="the number 3") == 1


def test_a_missed_deadline_reports_the_condition_and_the_last_value() -> None:
    with pytest.raises(AssertionError, match=r"waited 0\.02 s for a row; last seen: \[\]"):
        wait_until(list, timeout_s=0.02, describe="a row")


def test_a_condition_that_is_true_at_once_needs_no_time() -> None:
    assert wait_until(lambda: "here", timeout_s=0, describe="nothing") == "here"
