"""How often trouble that comes again and again is warned of."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator

import pytest

from reproq_prefork.text.log import Log, LogFormat, LogLevel
from reproq_prefork.text.recurring import CALM_S, FIRST_INTERVAL_S, LONGEST_INTERVAL_S, Recurring


class Written:
    """A log in memory, and a clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._fd = os.memfd_create("log")
        self.recurring = Recurring(Log(LogLevel.DEBUG, LogFormat.JSON, fd=self._fd), clock=lambda: self.now)

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in os.pread(self._fd, 1 << 24, 0).splitlines()]

    def warnings(self) -> list[dict[str, object]]:
        return [event for event in self.events() if event["level"] == "warning"]

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def written() -> Iterator[Written]:
    written = Written()
    yield written
    written.close()


def test_the_first_event_is_a_warning_and_the_next_ones_are_debug_lines(written: Written) -> None:
    for _ in range(3):
        written.recurring.warning("no connection", reason="none")
    assert [event["level"] for event in written.events()] == ["warning", "debug", "debug"]
    assert {event["reason"] for event in written.events()} == {"none"}


def test_hours_of_trouble_are_a_few_warnings_at_growing_intervals_with_a_count(written: Written) -> None:
    for second in range(2 * 3600):
        written.now = 1000.0 + second
        written.recurring.warning("no connection", second=second)
    warnings = written.warnings()
    at = [float(str(event["second"])) for event in warnings]
    assert at[:4] == [0, FIRST_INTERVAL_S, 3 * FIRST_INTERVAL_S, 7 * FIRST_INTERVAL_S]
    assert at[-1] - at[-2] == LONGEST_INTERVAL_S
    assert [event.get("times") for event in warnings[1:]] == [
        later - earlier for earlier, later in itertools.pairwise(at)
    ]


def test_another_kind_of_trouble_gets_its_own_warning(written: Written) -> None:
    written.recurring.warning("no connection")
    written.recurring.warning("a duty could not be done")
    assert [event["message"] for event in written.warnings()] == ["no connection", "a duty could not be done"]


def test_after_a_calm_period_the_same_trouble_is_new(written: Written) -> None:
    written.recurring.warning("no connection")
    written.now += CALM_S - 1
    written.recurring.warning("no connection")
    assert len(written.warnings()) == 2  # its interval is over
    written.recurring.warning("no connection")
    assert len(written.warnings()) == 2
    written.now += CALM_S + 1
    written.recurring.warning("no connection")
    assert len(written.warnings()) == 3
    assert "times" not in written.warnings()[-1]


def test_trouble_rarer_than_its_interval_is_always_a_warning(written: Written) -> None:
    for _ in range(50):
        written.recurring.warning("no connection")
        written.now += LONGEST_INTERVAL_S + 1
    assert len(written.warnings()) == 50
