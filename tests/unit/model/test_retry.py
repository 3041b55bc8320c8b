from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork.model.settlement import next_delay_s

ATTEMPTS = st.integers(min_value=1, max_value=10_000)
SECONDS = st.floats(min_value=0, max_value=1e9)
DRAWS = st.floats(min_value=0, max_value=1, exclude_max=True)


def test_the_ceiling_doubles_from_the_base_until_the_cap() -> None:
    ceilings = [next_delay_s(attempt, base_s=5, max_s=60, random=1.0) for attempt in range(1, 7)]
    assert ceilings == [5, 10, 20, 40, 60, 60]


def test_the_whole_range_below_the_ceiling_is_used() -> None:
    assert [next_delay_s(3, base_s=5, max_s=60, random=draw) for draw in (0.0, 0.25, 0.5)] == [0, 5, 10]


@given(ATTEMPTS, SECONDS, SECONDS, DRAWS)
def test_a_delay_is_never_negative_nor_above_the_cap(
    attempt: int, base_s: float, max_s: float, draw: float
) -> None:
    assert 0 <= next_delay_s(attempt, base_s, max_s, draw) <= max_s


@given(ATTEMPTS, SECONDS, SECONDS, DRAWS)
def test_a_later_attempt_never_has_a_lower_ceiling(
    attempt: int, base_s: float, max_s: float, draw: float
) -> None:
    assert next_delay_s(attempt, base_s, max_s, draw) <= next_delay_s(attempt + 1, base_s, max_s, draw)


@given(st.integers(min_value=65, max_value=10_000))
def test_an_absurd_attempt_waits_the_cap_and_overflows_nothing(attempt: int) -> None:
    assert next_delay_s(attempt, base_s=0.001, max_s=3600, random=1.0) == 3600


@pytest.mark.parametrize("attempt", [0, -1])
def test_attempts_count_from_one(attempt: int) -> None:
    with pytest.raises(ValueError, match="count from 1"):
        next_delay_s(attempt, base_s=5, max_s=60, random=0.5)
