"""When a worker asks what it holds."""

from __future__ import annotations

import pytest

from reproq_prefork.store.connection import UNSEEN_S
from reproq_prefork.worker.asking import AGAIN_S, Asking

LEASE_S = 30.0


@pytest.fixture
def asking() -> Asking:
    return Asking(LEASE_S, 0.0)


def test_a_worker_asks_once_in_each_lease(asking: Asking) -> None:
    assert asking.at == LEASE_S
    asking.asked(LEASE_S + 1)
    assert asking.at == 2 * LEASE_S + 1
    assert not asking.is_in_doubt(LEASE_S)


def test_a_question_that_was_refused_is_asked_again_soon(asking: Asking) -> None:
    asking.asked(10.0, is_answered=False)
    assert asking.at == 10.0 + AGAIN_S


def test_an_old_server_process_that_is_gone_leaves_no_doubt(asking: Asking) -> None:
    asking.connected_again(10.0, pooled=False, old_is_gone=True)
    asking.asked(10.0)
    assert not asking.is_in_doubt(10.0)
    assert asking.at == 10.0 + LEASE_S


def test_an_old_server_process_is_waited_for_until_it_is_gone(asking: Asking) -> None:
    asking.connected_again(10.0, pooled=False, old_is_gone=False)
    for now in (10.0, 1000.0, 100_000.0):
        assert asking.is_in_doubt(now)
        assert asking.awaits_old_process
        asking.asked(now)
        assert asking.at == now + AGAIN_S
    asking.old_process_is_gone(100_001.0)
    assert not asking.is_in_doubt(100_001.0)
    assert not asking.awaits_old_process


def test_behind_a_pooler_the_doubt_lasts_longer_than_a_statement_may_take(asking: Asking) -> None:
    asking.connected_again(10.0, pooled=True, old_is_gone=True)
    assert not asking.awaits_old_process
    assert asking.is_in_doubt(10.0 + UNSEEN_S - 1)
    assert not asking.is_in_doubt(10.0 + UNSEEN_S)


@pytest.mark.parametrize("seen_as_it_reconnects", [True, False])
def test_a_server_process_that_is_not_registered_leaves_doubt_for_as_long(
    asking: Asking, seen_as_it_reconnects: bool
) -> None:
    """The connection was lost again during the wait for the first process: only the first is registered."""
    asking.connected_again(10.0, pooled=False, old_is_gone=False)
    asking.connected_again(20.0, pooled=False, old_is_gone=seen_as_it_reconnects)
    if not seen_as_it_reconnects:
        asking.old_process_is_gone(20.0)
    assert not asking.awaits_old_process
    assert asking.is_in_doubt(20.0 + UNSEEN_S - 1)
    assert not asking.is_in_doubt(20.0 + UNSEEN_S)
    asking.connected_again(60.0, pooled=False, old_is_gone=True)
    assert not asking.is_in_doubt(60.0)


def test_doubt_about_one_server_process_lasts_even_if_the_next_one_is_gone(asking: Asking) -> None:
    asking.connected_again(10.0, pooled=True, old_is_gone=True)
    asking.connected_again(15.0, pooled=False, old_is_gone=True)
    assert asking.is_in_doubt(20.0)
