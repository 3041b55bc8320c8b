"""Plots, one a table: small PNG files that a page can show."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures import Series, Shape, Table
from benchmarks.report.tables import number, ordered

WIDTH_INCHES = 8.0
LINE_INCHES = 0.28
DPI = 90
OURS, LIMIT, PEER = "#1f6f8b", "#9aa5b1", "#d08c60"


def save(table: Table, path: Path) -> None:
    """Write the plot of a table of rates or times."""
    shown = [series for series in ordered(table) if series.values]
    shown.reverse()  # the first on top
    figure = Figure(figsize=(WIDTH_INCHES, 1.0 + LINE_INCHES * len(shown)), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    draw = _rate if table.shape is Shape.RATE else _times
    for place, series in enumerate(shown):
        draw(axes, place, series)
    axes.set_xscale("log")
    axes.set_yticks(range(len(shown)), [series.name for series in shown], fontsize=8)
    axes.set_xlabel(f"{table.unit} ({_legend(table)}, logarithmic)", fontsize=8)
    axes.set_title(table.title, fontsize=10)
    axes.margins(x=0.12)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Software": None})


def _legend(table: Table) -> str:
    if table.shape is Shape.RATE:
        return "median, and from min to max; more is better"
    return "p50, and from there to p99; less is better"


def _rate(axes: Axes, place: int, series: Series) -> None:
    axes.barh(place, series.median, color=_colour(series), height=0.7)
    axes.hlines(place, min(series.values), max(series.values), color="black", linewidth=1)
    axes.annotate(
        number(series.median),
        (max(series.values), place),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )


def _times(axes: Axes, place: int, series: Series) -> None:
    middle, high = series.percentile(50), series.percentile(99)
    if math.isnan(middle) or middle <= 0:
        return
    axes.hlines(place, middle, high, color=_colour(series), linewidth=5)
    axes.plot([middle], [place], "o", color=_colour(series), markersize=7)
    axes.annotate(
        f"{number(middle)} / {number(high)}",
        (high, place),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )


def _colour(series: Series) -> str:
    if series.is_ours:
        return OURS
    return LIMIT if series.name.startswith(("pgbench", "bare psycopg")) else PEER
