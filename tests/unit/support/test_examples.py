from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings

from tests.support.examples import examples


@contextmanager
def profile(name: str) -> Iterator[None]:
    before = settings.get_current_profile_name()
    settings.load_profile(name)
    try:
        yield
    finally:
        settings.load_profile(before)


@pytest.mark.parametrize("name", ["full", "first-failure"])
def test_all_examples_are_tried_unless_a_run_asks_for_fewer(name: str) -> None:
    with profile(name):
        assert (settings().max_examples, examples(200), examples(1)) == (100, 200, 1)


def test_the_quick_profile_tries_a_quarter_of_them_and_at_least_one() -> None:
    with profile("quick"):
        assert (settings().max_examples, examples(200), examples(1)) == (25, 50, 1)
