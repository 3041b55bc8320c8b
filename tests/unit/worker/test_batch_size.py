"""How many runs are claimed at once, and from where."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork.model.run import ClaimedRun, Place
from reproq_prefork.worker.batch_size import BATCH_BUDGET_S, MAX_BATCH, BatchSize
from reproq_prefork.worker.claim_position import FROM_HEAD_S, FROM_HEAD_SHARE, ClaimPosition
from tests.support.fakes.runs import RUN, enqueued_at

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def grown(seconds_each: float, batches: int = 20) -> BatchSize:
    """After so many batches that were got whole, of runs that take so long."""
    size = BatchSize()
    for _ in range(batches):
        runs = size.size
        size.claimed(runs)
        size.ended(runs, runs * seconds_each)
    return size


def test_the_first_claim_is_of_one_run() -> None:
    assert BatchSize().size == 1


def test_runs_of_microseconds_are_claimed_by_hundreds_after_a_few_claims() -> None:
    sizes = [grown(1e-6, batches).size for batches in range(10)]
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 128, 256, MAX_BATCH]


def test_as_many_are_claimed_as_fit_into_the_budget() -> None:
    assert grown(0.001).size == 20
    assert grown(0.0099).size == 2


def test_long_runs_are_claimed_one_by_one() -> None:
    assert grown(BATCH_BUDGET_S).size == 1
    assert grown(60.0).size == 1


def test_one_slow_batch_reduces_the_size_and_several_fast_ones_restore_it() -> None:
    size = grown(1e-5)
    size.claimed(size.size)
    size.ended(100, 100 * 0.01)
    assert size.size == 2
    size.claimed(2)
    size.ended(2, 2e-5)
    assert size.size < 4


def test_after_a_small_claim_the_next_asks_for_at_most_twice_as_many_runs() -> None:
    size = grown(1e-6)
    size.claimed(1)
    size.ended(1, 1e-6)
    assert size.size == 2


@given(st.lists(st.tuples(st.integers(1, MAX_BATCH), st.floats(0, 1e4)), max_size=50))
def test_the_size_is_always_within_its_limits(batches: list[tuple[int, float]]) -> None:
    size = BatchSize()
    for got, seconds in batches:
        asked = size.size
        runs = min(got, asked)
        size.claimed(runs)
        size.ended(runs, seconds)
        assert 1 <= size.size <= min(2 * runs, MAX_BATCH)
        assert size.size == 1 or size.size * seconds / runs <= 2 * BATCH_BUDGET_S


# --- from where ---


def a_run(number: int, *, queue_name: str = "default", priority: int = 0, later_s: float = 0) -> ClaimedRun:
    run = RUN._replace(id=number, queue_name=queue_name, priority=priority)
    return enqueued_at(run, NOON + timedelta(seconds=later_s))


def test_the_first_claim_is_from_the_head_and_the_next_is_behind_the_last_run_of_each_queue() -> None:
    position = ClaimPosition()
    assert position.places(5.0) == {}
    position.claimed([a_run(1), a_run(7, queue_name="mail"), a_run(2, later_s=1)], 5.0, 5.001)
    assert position.places(5.01) == {
        "default": Place(0, (NOON + timedelta(seconds=1)).isoformat(), 2),
        "mail": Place(0, NOON.isoformat(), 7),
    }


def test_the_position_of_a_scheduled_run_is_its_time() -> None:
    position = ClaimPosition()
    position.places(0.0)
    later = NOON + timedelta(hours=1)
    position.claimed([enqueued_at(a_run(1), NOON, run_after=later)], 0.0, 0.0)
    assert position.places(0.01)["default"].due == later.isoformat()


def test_every_now_and_then_a_claim_is_from_the_head() -> None:
    position = ClaimPosition()
    now, from_head = 0.0, []
    while now < 2.0:
        if not position.places(now):
            from_head.append(now)
        position.claimed([a_run(1)], now, now + 0.001)
        now += 0.01
    gaps = [later - earlier for earlier, later in itertools.pairwise(from_head)]
    assert gaps
    assert all(FROM_HEAD_S <= gap <= FROM_HEAD_S + 0.02 for gap in gaps)


def test_a_head_that_is_slow_to_scan_takes_a_small_share_of_the_time() -> None:
    position = ClaimPosition()
    position.places(0.0)
    position.claimed([a_run(1)], 0.0, 2.0)
    assert position.places(2.0 + 2.0 / FROM_HEAD_SHARE - 0.1)
    assert position.places(2.0 + 2.0 / FROM_HEAD_SHARE) == {}


def test_after_the_position_is_forgotten_a_claim_starts_at_the_head() -> None:
    position = ClaimPosition()
    position.places(0.0)
    position.claimed([a_run(1)], 0.0, 0.0)
    position.forget()
    assert position.places(0.001) == {}
