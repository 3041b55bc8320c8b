"""Whether a history may be: each rule by itself, over plain data. No log is trusted about what another knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tests.chaos import promises, recovery, rules
from tests.chaos.executions import Story
from tests.chaos.history import History

Rule = Callable[[Story], Iterator[str]]
RULES: Mapping[str, Rule] = {
    "nothing is lost": rules.nothing_is_lost,
    "no run comes from nowhere": rules.nothing_comes_from_nowhere,
    "every edge is legal": rules.edges_are_legal,
    "each run ends once, by its latest claim": rules.each_ends_once,
    "claims grow, and attempts have a maximum": rules.claims_grow,
    "no more starts than attempts": rules.no_more_starts_than_attempts,
    "no two executions side by side": rules.none_side_by_side,
    "each second execution is explained": rules.each_second_execution_is_explained,
    "a run that succeeds was executed": rules.what_succeeds_has_run,
    "recovery is in time": recovery.recovery_is_in_time,
    "no row stays RUNNING without an attempt that runs": recovery.none_is_held_by_nobody,
    "an atomic task's effects exist once, with its success": promises.effects_are_there_once,
    "a cancelled run does not run again": promises.a_cancelled_run_does_not_run_again,
    "one live run per key": promises.one_live_run_of_a_key,
    "a Retry waits as long as it says": promises.a_retry_waits,
    "only tasks that ask for too much memory run out of it": promises.who_lacks_memory_has_hoarded,
    "an odd row fails alone": promises.odd_rows_fail,
    "a harmless fault stops no work": rules.who_is_hit_works_on,
    "nothing is left": rules.nothing_is_left,
    "work goes on": rules.work_goes_on,
}


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str
    what: str


def violations(history: History) -> list[Violation]:
    story = Story(history)
    return [Violation(name, what) for name, rule in RULES.items() for what in rule(story)]
