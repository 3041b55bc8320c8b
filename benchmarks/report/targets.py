"""What the project set out to reach, each as a ratio or a figure of one run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.figures import Result, Series
from benchmarks.measure import cost, drain, enqueue, pick_up, scale
from benchmarks.measure.limit import by_pgbench, by_pgbench_in_batches
from benchmarks.report.tables import number
from benchmarks.subject.installation import FORK, INLINE, INLINE_DJANGO, INLINE_SINGLE

Results = Mapping[str, Result]
WORKERS = drain.DEFAULT_WORKERS


@dataclass(frozen=True)
class Target:
    text: str
    bound: float
    is_ceiling: bool
    measured: Callable[[Results], float]  # nan: was not measured

    def line(self, results: Results) -> tuple[str, str, str, str]:
        value = self.measured(results)
        if math.isnan(value):
            verdict = ""
        else:
            verdict = "yes" if (value <= self.bound if self.is_ceiling else value >= self.bound) else "no"
        return self.text, f"{'≤' if self.is_ceiling else '≥'} {self.bound:g}", number(value), verdict


def markdown(results: Results) -> str:
    rows = [target.line(results) for target in TARGETS]
    head = ("", "target", "measured", "reached")
    lines = [head, ("---", "---:", "---:", "---"), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _series(results: Results, measurement: str, title: str, name: str) -> Series | None:
    """By its name, or by a peer's name in front of its version."""
    result = results.get(measurement)
    table = None if result is None else result.table(title)
    if table is None:
        return None
    return table.named(name) or next(
        (series for series in table.series if series.name.rpartition(" ")[0] == name), None
    )


def _at(measurement: str, title: str, name: str, percent: float | None = None) -> Callable[[Results], float]:
    """The median of a line, or a percentile."""

    def value(results: Results) -> float:
        series = _series(results, measurement, title, name)
        if series is None:
            return math.nan
        return series.median if percent is None else series.percentile(percent)

    return value


def _ratio(
    above: Callable[[Results], float], below: Callable[[Results], float]
) -> Callable[[Results], float]:
    def value(results: Results) -> float:
        divisor = below(results)
        return above(results) / divisor if divisor else math.nan

    return value


def _drain(name: str) -> Callable[[Results], float]:
    return _at(drain.NAME, drain.TITLE, name)


def _pick_up(name: str, percent: float) -> Callable[[Results], float]:
    return _at(pick_up.NAME, pick_up.FROM_COMMIT, name, percent)


_INLINE = _drain(drain.ours(INLINE, WORKERS))

TARGETS = (
    Target(
        "drain, inline ÷ pgbench with our own SQL in batches",
        0.5,
        False,
        _ratio(_INLINE, _drain(by_pgbench_in_batches(WORKERS))),
    ),
    Target(
        "drain, inline, one commit a task ÷ pgbench with the one statement",
        0.65,
        False,
        _ratio(_drain(drain.ours(INLINE_SINGLE, WORKERS)), _drain(by_pgbench(WORKERS))),
    ),
    Target("drain, inline ÷ pgqueuer", 1.3, False, _ratio(_INLINE, _drain("pgqueuer"))),
    Target("drain, inline ÷ graphile-worker", 1.0, False, _ratio(_INLINE, _drain("graphile-worker"))),
    Target(
        "drain, inline, Django tasks ÷ django-ox",
        40,
        False,
        _ratio(_drain(drain.ours(INLINE_DJANGO, WORKERS)), _drain("django-ox")),
    ),
    Target("drain, inline ÷ Celery prefork", 20, False, _ratio(_INLINE, _drain("Celery prefork"))),
    Target(
        "drain, fork ÷ RQ, fork per job",
        3,
        False,
        _ratio(_drain(drain.ours(FORK, WORKERS)), _drain("RQ, fork per job")),
    ),
    Target(
        "sustained drain of 500,000 ÷ its own first 50,000",
        0.9,
        False,
        _ratio(_at(scale.NAME, scale.SUSTAINED, scale.WHOLE), _at(scale.NAME, scale.SUSTAINED, scale.FIRST)),
    ),
    *(
        Target(
            f"pick-up, inline, p{percent} ÷ a bare LISTEN loop",
            bound,
            True,
            _ratio(_pick_up(pick_up.ours(INLINE), percent), _pick_up(pick_up.LISTEN_ALONE, percent)),
        )
        for percent, bound in ((50, 2), (99, 3))
    ),
    Target(
        "bulk enqueue ÷ COPY of the same rows",
        0.6,
        False,
        _ratio(
            _at(enqueue.NAME, enqueue.BULK, enqueue.BY_API), _at(enqueue.NAME, enqueue.BULK, enqueue.COPY)
        ),
    ),
    Target(
        "enqueue of one ÷ a bare INSERT",
        0.7,
        False,
        _ratio(
            _at(enqueue.NAME, enqueue.ONE_BY_ONE, enqueue.BY_API),
            _at(enqueue.NAME, enqueue.ONE_BY_ONE, enqueue.BARE_INSERT),
        ),
    ),
    Target(
        "claim, p99 with 5M pending ÷ with 1k",
        1.5,
        True,
        _ratio(
            _at(scale.NAME, scale.CLAIM, scale.PENDING_5M, 99),
            _at(scale.NAME, scale.CLAIM, scale.PENDING_1K, 99),
        ),
    ),
    Target(
        "PSS of one more worker with Django loaded, MiB",
        12,
        True,
        _at(cost.NAME, cost.MEMORY, cost.ONE_MORE_WORKER),
    ),
    Target("idle host, 16 workers, % of a core", 1, True, _at(cost.NAME, cost.IDLE, cost.IDLE_CPU)),
    Target("idle host, 16 workers, statements/s", 3, True, _at(cost.NAME, cost.IDLE, cost.IDLE_COMMITS)),
)
