"""What a long action says on standard error."""

from __future__ import annotations

import pytest

from reproq_prefork.cli import progress
from reproq_prefork.cli.progress import INTERVAL_S, Progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_short_action_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress("deleted")
    clock.now += INTERVAL_S - 0.1
    shown.show(5_000)
    assert capsys.readouterr() == ("", "")


def test_a_long_action_says_how_far_it_is_on_stderr_and_not_too_often(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Progress("deleted")
    for tenth in range(1, 121):
        clock.now += 0.1
        shown.show(1_000 * tenth)
    output, errors = capsys.readouterr()
    assert output == ""
    assert len(errors.splitlines()) == 2
    assert errors.splitlines()[0] in ("deleted 50,000 runs so far", "deleted 51,000 runs so far")
