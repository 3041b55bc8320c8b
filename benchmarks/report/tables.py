"""Tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.figures import Series, Shape, Table

PERCENTILES = (50, 95, 99, 100)


def markdown(table: Table) -> str:
    """The table with its title and its notes; lines that have no values say why."""
    heading = f"### {table.title}{f', {table.unit}' if table.unit else ''}"
    notes = "".join(f"\n{note}\n" for note in table.notes)
    head, rows = _body(table)
    return f"{heading}\n{notes}\n{_grid(head, rows)}\n"


def ordered(table: Table) -> Sequence[Series]:
    """As measured where the order says something; else the best first."""
    if table.shape is Shape.COST or len(table.series) < 6 or all(series.is_ours for series in table.series):
        return table.series
    sign = -1 if table.shape is Shape.RATE else 1
    return sorted(table.series, key=lambda series: (math.isnan(series.median), sign * series.median))


def number(value: float) -> str:
    """Three digits that count, and no more."""
    if math.isnan(value):
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _body(table: Table) -> tuple[Sequence[str], list[Sequence[str]]]:
    series = ordered(table)
    if table.shape is Shape.TIMES:
        names = [f"p{percent}" if percent < 100 else "max" for percent in PERCENTILES]
        return ["", *names, "configuration"], [
            [_name(one), *(number(one.percentile(percent)) for percent in PERCENTILES), _about(one)]
            for one in series
        ]
    numbers = [
        [
            number(one.median),
            number(min(one.values, default=math.nan)),
            number(max(one.values, default=math.nan)),
        ]
        for one in series
    ]
    if table.shape is Shape.COST:
        return ["", "median", "min", "max", "configuration"], [
            [_name(one), *values, _about(one)] for one, values in zip(series, numbers, strict=True)
        ]
    best = max((one.median for one in series if one.is_ours and one.values), default=math.nan)
    return ["", "median", "min", "max", "our best is", "configuration"], [
        [_name(one), *values, f"{number(best / one.median)} ×" if one.values else "–", _about(one)]
        for one, values in zip(series, numbers, strict=True)
    ]


def _name(series: Series) -> str:
    return f"**{series.name}**" if series.is_ours else series.name


def _about(series: Series) -> str:
    return f"{series.configuration}; failed: {series.failure}" if series.failure else series.configuration


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    aligned = ["---", *("---:" for _ in head[1:-1]), "---"]
    return "\n".join(f"| {' | '.join(cells).replace('| |', '|  |')} |" for cells in (head, aligned, *rows))
