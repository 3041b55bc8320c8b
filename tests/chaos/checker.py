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
    "nothing comes from nowhere": rules.nothing_comes_from_nowhere,
    "every edge is legal": rules.edges_are_legal,
    "each run ends once, by its latest claim": rules.each_ends_once,
    "claims grow, and attempts have a maximum": rules.claims_grow,
    "no more starts than attempts": rules.no_more_starts_than_attempts,
    "no two executions side by side": rules.none_side_by_side,
    "each second execution is explained": rules.each_second_execution_is_explained,
    "what succeeds has run": rules.what_succeeds_has_run,
    "recovery is in time": recovery.recovery_is_in_time,
    "no row stays RUNNING without an attempt that runs": recovery.none_is_held_by_nobody,
    "an atomic task's effects are there once, with its success": promises.effects_are_there_once,
    "a cancelled run does not run again": promises.a_cancelled_run_does_not_run_again,
    "one live run of a key": promises.one_live_run_of_a_key,
    "a Retry waits as long as it says": promises.a_retry_waits,
    "who lacks memory has asked for too much": promises.who_lacks_memory_has_hoarded,
    "an odd row fails by itself": promises.odd_rows_fail,
    "what harms nobody stops nobody": rules.who_is_hit_works_on,
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
