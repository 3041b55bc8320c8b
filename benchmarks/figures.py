"""What a measurement gives: tables of series of values, kept as one JSON file a measurement."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Self


class Shape(Enum):
    """How a table reads its series."""

    RATE = "rate"  # one value a round, more is better: median, min, max, ratio to the first
    COST = "cost"  # one value a round, less is better: median, min, max
    TIMES = "times"  # many values a round, less is better: percentiles


@dataclass(frozen=True)
class Series:
    """One line of a table: all values of one contender, of all rounds together."""

    name: str
    configuration: str  # one line, for people
    values: tuple[float, ...]
    is_ours: bool = False
    failure: str = ""  # why there are no values, or too few

    @property
    def median(self) -> float:
        return statistics.median(self.values) if self.values else math.nan

    def percentile(self, percent: float) -> float:
        """The smallest value that `percent` of all values do not exceed."""
        if not self.values:
            return math.nan
        ordered = sorted(self.values)
        return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


@dataclass(frozen=True)
class Table:
    title: str
    unit: str
    shape: Shape
    series: tuple[Series, ...]
    notes: tuple[str, ...] = ()

    def named(self, name: str) -> Series | None:
        return next((series for series in self.series if series.name == name), None)


@dataclass(frozen=True)
class Result:
    """All that one measurement has found, and where."""

    measurement: str
    taken_at: str  # ISO 8601, UTC
    rounds: int
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    tables: tuple[Table, ...] = field(default=())

    def table(self, title: str) -> Table | None:
        return next((table for table in self.tables if table.title == title), None)

    def save(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self.measurement}.json"
        plain = asdict(self, dict_factory=_plain)
        path.write_text(json.dumps(plain, indent=1, ensure_ascii=False) + "\n")
        return path

    @classmethod
    def load(cls, path: Path) -> Self:
        read: dict[str, Any] = json.loads(path.read_text())
        tables = tuple(_table(table) for table in read.pop("tables"))
        return cls(**read, tables=tables)


def _plain(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    return {
        name: value.value if isinstance(value, Enum) else _rounded(value) if name == "values" else value
        for name, value in items
    }


def _rounded(values: Sequence[float]) -> list[float]:
    """Four digits that count: more would be noise, and megabytes."""
    return [float(f"{value:.4g}") for value in values]


def _table(read: dict[str, Any]) -> Table:
    series = tuple(Series(**{**one, "values": tuple(one["values"])}) for one in read.pop("series"))
    return Table(**{**read, "shape": Shape(read["shape"]), "notes": tuple(read["notes"]), "series": series})
