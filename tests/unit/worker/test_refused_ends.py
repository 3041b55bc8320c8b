"""What is tried, and when, in place of an end that the server refuses."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from reproq_prefork.model.run import Status
from reproq_prefork.model.settlement import Settlement, handed_back
from reproq_prefork.store.outcomes import ServerShort, StatementRefused, ValueRefused
from reproq_prefork.worker.refused_ends import (
    GIVEN_UP_AGAIN_S,
    MAX_CARRIED,
    PATIENCE_AT_THE_END_S,
    PATIENCE_S,
    PATIENCE_WITH_THE_SERVER_S,
    RefusedEnd,
    RefusedEnds,
)
from reproq_prefork.worker.smaller_ends import smaller_ends
from tests.support.fakes.runs import RUN

SUCCESS = Settlement(
    RUN.id, RUN.claim, Status.SUCCESSFUL, result='"done"', last_attempt='{"exit": "returned"}'
)
RETRY = Settlement(
    RUN.id,
    RUN.claim,
    Status.PENDING,
    error={"kind": "failed", "message": "no" * 500, "stderr": "x" * 60_000, "traceback": "y"},
    delay_s=5.0,
)
NOT_THIS_RUN = StatementRefused("not this run")


def ends_in_place_of(
    wanted: Settlement,
    *,
    value_refused: bool = False,
    is_python: bool = True,
    is_cancelled: bool = False,
) -> list[Settlement]:
    return list(
        smaller_ends(
            wanted, "the reason", value_refused=value_refused, is_python=is_python, is_cancelled=is_cancelled
        )
    )


# --- what ---


def test_a_result_is_never_dropped_silently() -> None:
    less, failed, bare = ends_in_place_of(SUCCESS)
    assert less == SUCCESS._replace(last_attempt=None)
    assert (failed.status, bare.status) == (Status.FAILED, Status.FAILED)
    assert (failed.error or {})["kind"] == "refused"
    assert "the reason" in (failed.error or {})["message"]
    assert bare == Settlement(RUN.id, RUN.claim, Status.FAILED, finish_due=True)


def test_a_result_that_cannot_be_stored_fails_the_run_without_a_retry() -> None:
    *_, failed, _bare = ends_in_place_of(SUCCESS, value_refused=True)
    assert failed.status is Status.FAILED
    assert failed.error == {
        "kind": "unusable_output",
        "message": "the database refused the result: the reason",
    }


def test_the_smallest_success_loses_nothing_if_there_is_no_result() -> None:
    less, *_ = ends_in_place_of(SUCCESS._replace(result="null"))
    assert less == Settlement(RUN.id, RUN.claim, Status.SUCCESSFUL)


def test_a_retry_stays_a_retry_with_a_shortened_error() -> None:
    less, failed, bare = ends_in_place_of(RETRY)
    assert (less.status, less.delay_s) == (Status.PENDING, 5.0)
    assert less.error == {"kind": "failed", "message": ("no" * 500)[:200]}
    assert failed.status is bare.status is Status.FAILED


def test_an_end_that_is_already_minimal_is_not_tried_twice() -> None:
    ends = ends_in_place_of(handed_back(RUN.id, RUN.claim))
    assert [end.status for end in ends] == [Status.FAILED, Status.FAILED]


def test_each_end_is_less_than_the_one_before() -> None:
    for wanted in (SUCCESS, RETRY):
        sizes = [len(repr(end)) for end in (wanted, *ends_in_place_of(wanted, is_cancelled=False))]
        assert sizes[-1] == min(sizes)


def test_a_cancelled_run_may_also_end_as_cancelled() -> None:
    _less, cancelled, bare, *_ = ends_in_place_of(SUCCESS, is_cancelled=True)
    assert (cancelled.status, bare.status) == (Status.CANCELLED, Status.CANCELLED)
    assert bare.error is None


@pytest.mark.parametrize("is_python", [True, False])
def test_an_end_that_the_task_did_not_announce_is_still_to_be_announced(is_python: bool) -> None:
    *_, cancelled, _bare, failed, bare = ends_in_place_of(SUCCESS, is_python=is_python, is_cancelled=True)
    assert {end.finish_due for end in (cancelled, failed, bare)} == {is_python}


# --- when ---


class Trial:
    """An end that is refused whenever it is tried, and the times of it."""

    def __init__(self, error: Exception = NOT_THIS_RUN, *, wanted: Settlement = SUCCESS) -> None:
        self.error = error
        self.end = RefusedEnd.first_refused(wanted, error, 0.0)  # type: ignore[arg-type]
        self.tried: list[tuple[float, Settlement]] = []

    def go_on(self, until: float, *, leaving: bool = False, took_s: float = 0.0) -> None:
        while self.end.next_at <= until:
            now = self.end.next_at
            goes_on = True
            while goes_on:
                self.tried.append((now, self.end.next_end(now, leaving=leaving)))
                goes_on = self.end.was_refused(self.error, now, took_s=took_s)  # type: ignore[arg-type]

    def first(self, status: Status) -> float:
        return next((at for at, end in self.tried if end.status is status), math.inf)


def test_an_end_is_retried_unchanged_with_growing_pauses_and_then_replaced_by_smaller_ones() -> None:
    trial = Trial()
    trial.go_on(PATIENCE_S)
    as_it_is = [at for at, end in trial.tried if end == SUCCESS]
    pauses = [later - earlier for earlier, later in pairwise(as_it_is)]
    assert len(as_it_is) >= 4
    assert pauses[:-1] == sorted(pauses[:-1])
    assert trial.first(Status.FAILED) == PATIENCE_S
    assert trial.end.is_given_up


def test_an_end_that_was_given_up_is_tried_once_a_minute_from_the_first_form_on() -> None:
    trial = Trial()
    trial.go_on(PATIENCE_S)
    trial.tried.clear()
    trial.go_on(PATIENCE_S + 3 * GIVEN_UP_AGAIN_S)
    assert [at for at, end in trial.tried if end == SUCCESS] == [
        PATIENCE_S + n * GIVEN_UP_AGAIN_S for n in (1, 2, 3)
    ]


def test_a_value_that_is_refused_is_not_sent_again() -> None:
    trial = Trial(ValueRefused("no such value"))
    trial.go_on(0.0)
    assert SUCCESS not in [end for _at, end in trial.tried]
    assert trial.first(Status.FAILED) == 0.0


def test_a_server_that_lacks_something_is_given_far_more_time() -> None:
    trial = Trial(ServerShort("no space left on device"))
    trial.go_on(PATIENCE_WITH_THE_SERVER_S - 1)
    assert {end for _at, end in trial.tried} == {SUCCESS}
    trial.go_on(PATIENCE_WITH_THE_SERVER_S + 30)
    assert trial.first(Status.FAILED) < math.inf


def test_a_deadlock_or_two_cost_no_result() -> None:
    end = RefusedEnd.first_refused(SUCCESS, StatementRefused("deadlock detected"), 0.0)
    assert end.next_end(100.0, leaving=False) == SUCCESS
    end.was_refused(StatementRefused("deadlock detected"), 100.0, took_s=0.0)
    assert end.next_end(200.0, leaving=False) == SUCCESS
    assert end.of == 1


def test_after_a_cancel_smaller_ends_are_tried_at_once() -> None:
    trial = Trial(ServerShort("no space left on device"))
    trial.end.is_cancelled = True
    trial.go_on(1.0)
    assert trial.first(Status.CANCELLED) < 1.0


def test_a_worker_that_is_to_stop_has_less_patience() -> None:
    trial = Trial()
    trial.go_on(PATIENCE_S - 0.1, leaving=True)
    assert PATIENCE_AT_THE_END_S <= trial.first(Status.FAILED) < PATIENCE_S


def test_after_a_slow_refusal_the_next_try_waits() -> None:
    """Each refusal takes the whole time limit of the server, and a worker has other runs."""
    trial = Trial()
    trial.go_on(60.0, took_s=5.0)
    times = [at for at, _end in trial.tried]
    assert all(later - earlier >= 5.0 for earlier, later in pairwise(times))
    assert trial.first(Status.FAILED) < 40.0


def test_an_inconclusive_answer_is_not_counted_as_a_refusal() -> None:
    trial = Trial()
    for at in range(100):
        trial.end.put_off(float(at))
    assert trial.end.refusals == 1
    assert trial.end.next_end(100.0, leaving=False) == SUCCESS
    assert trial.end.of == 1


def test_retries_go_on_for_days() -> None:
    trial = Trial(ServerShort("no space left on device"), wanted=RETRY)
    for _ in range(5_000):
        trial.end.was_refused(ServerShort("no space left on device"), 0.0, took_s=0.0)
        trial.end.is_given_up = False
    assert trial.end.next_at == 10.0


# --- all of one worker ---


def carried(count: int) -> RefusedEnds:
    ends = RefusedEnds()
    for number in range(count):
        run = RUN._replace(id=number + 1)
        wanted = SUCCESS._replace(run_id=run.id)
        ends.add(RefusedEnd.first_refused(wanted, NOT_THIS_RUN, float(number)))
    return ends


def test_the_next_time_is_that_of_the_first_that_is_due() -> None:
    assert RefusedEnds().next_at == math.inf
    assert carried(3).next_at == 0.25
    assert [end.settlement.run_id for end in carried(3).due(1.3)] == [1, 2]


def test_a_worker_has_too_many_ends_once_the_limit_of_hopeless_ends_is_reached() -> None:
    ends = carried(MAX_CARRIED + 1)
    assert ends.are_too_many
    for number, end in enumerate(ends):
        assert ends.are_hopeless is (number >= MAX_CARRIED)
        end.is_given_up = True
    ends.drop((1, RUN.claim))
    assert not ends.are_too_many
