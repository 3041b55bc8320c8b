"""A trial of the benchmarks with odd rows: with our workers, and with workers that do nothing but end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from benchmarks.storm.contestants import BODIES_FILE, Contestant, children_of, ours
from benchmarks.storm.odd_inputs import OURS, OddInput
from benchmarks.storm.odd_rows import trial
from benchmarks.storm.producers import our_producer
from tests.support.waiting import wait_until

ACCEPTED = [odd for odd in OURS.inputs if "payload" in odd.columns]
REFUSED = [odd for odd in OURS.inputs if odd.columns.keys() & {"run_after", "claims"}]


def until(is_so: Callable[[], bool], describe: str) -> Callable[[float], None]:
    def wait(_window_s: float) -> None:
        wait_until(is_so, timeout_s=40, describe=describe)

    return wait


@pytest.mark.parametrize(
    ("odd", "fate"),
    [(ACCEPTED[0], "FAILED"), (REFUSED[0], "refused")],
    ids=["a payload that does not decode", "a time out of range"],
)
def test_odd_rows_affect_only_themselves_with_our_workers(
    database_url: str, tmp_path: Path, odd: OddInput, fate: str
) -> None:
    contestant, producer = ours(database_url, tmp_path / "ours"), our_producer(database_url)

    def all_have_ended() -> bool:
        return contestant.states().keys() <= {"SUCCESSFUL", "FAILED"}

    def are_there() -> bool:
        return (
            sum(
                "reproq-prefork: worker" in " ".join(each.cmdline())
                for each in children_of(contestant.running[0])
            )
            == 4
        )

    def boot() -> None:
        wait_until(are_there, timeout_s=20, describe="four workers")

    found = trial(contestant, producer, odd, 60.0, boot=boot, wait=until(all_have_ended, "all runs to end"))
    assert (found.done, found.restarts_s, dict(found.fates)) == (40, (), {fate: 5})
    assert contestant.running == [], "its workers have ended"


class NobodysQueue:
    """A producer whose rows stay as they are."""

    inputs: Sequence[OddInput] = ()

    def empty(self) -> None: ...

    def add(self, odd: OddInput, count: int) -> None: ...

    def fates(self) -> Mapping[str, int]:
        return {"READY": 5}


def test_workers_that_end_are_restarted_and_counted(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    contestant = Contestant(
        name="it ends",
        version="1",
        configuration="",
        processes=1,
        directory=tmp_path,
        feed=lambda count, pause_s, first: None,
        states=dict,
        command=("/bin/sh", "-c", f"echo >> {starts}; exit 1"),
        cwd=tmp_path,
        environ={BODIES_FILE: str(tmp_path / "bodies")},
    )

    def has_restarted_twice() -> bool:
        return starts.exists() and len(starts.read_text().splitlines()) >= 3

    found = trial(
        contestant,
        NobodysQueue(),
        OddInput("odd"),
        60.0,
        boot=lambda: None,
        wait=until(has_restarted_twice, "two restarts"),
    )
    assert found.done == 0
    assert len(found.restarts_s) >= 2
    assert "workers were restarted" in found.sentence
