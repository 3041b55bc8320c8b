"""The page of all results, and the part of the documentation that is made from them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from benchmarks.figures import Result, Shape, Table
from benchmarks.measure import cost, drain, enqueue, pick_up, scale
from benchmarks.report import targets
from benchmarks.report.tables import markdown

PAGE = "README.md"
# The order of the page; a file of another name is no result.
MEASUREMENTS = ("drain", "pick-up", "enqueue", "scale", "cost", "recovery")
BEGIN, END = "<!-- results: made by `python -m benchmarks report` -->", "<!-- end of results -->"
# What the documentation shows; the page has all.
SHOWN = {
    drain.TITLE,
    pick_up.FROM_COMMIT,
    pick_up.FROM_CALL,
    enqueue.ONE_BY_ONE,
    enqueue.BULK,
    scale.CLAIM,
    cost.MEMORY,
    cost.IDLE,
}


def load_all(directory: Path) -> dict[str, Result]:
    paths = {name: directory / f"{name}.json" for name in MEASUREMENTS}
    return {name: Result.load(path) for name, path in paths.items() if path.exists()}


def write(directory: Path, documentation: Path | None) -> None:
    """Write plots and page of the results in `directory`, and the part of `documentation` between its marks."""
    # Not at the top: without plots nobody needs what draws them.
    from benchmarks.report import plots

    results = load_all(directory)
    for table in _tables(results):
        if _has_plot(table):
            plots.save(table, directory / _file_name(table))
    head = f"# Results\n\nMade by `make bench-peers`.\n\n{_provenance(results)}\n"
    (directory / PAGE).write_text(head + _body(results, _tables(results), "."))
    if documentation is not None:
        shown = [table for table in _tables(results) if table.title in SHOWN]
        prefix = f"../{directory.name}" if directory.parent == documentation.parent else None
        own = _body(results, shown, prefix or f"../{directory.parent.name}/{directory.name}")
        text = documentation.read_text()
        made = f"{BEGIN}\n\n{_provenance(results)}\n{own}\n{END}"
        documentation.write_text(
            re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: made, text, flags=re.DOTALL)
        )


def plain(results: Iterable[Result]) -> str:
    """All tables, for a terminal."""
    return "\n".join(markdown(table) for result in results for table in result.tables)


def _tables(results: dict[str, Result]) -> list[Table]:
    return [table for result in results.values() for table in result.tables]


def _body(results: dict[str, Result], tables: Iterable[Table], to_plots: str) -> str:
    parts = [f"### Targets\n\n{targets.markdown(results)}"]
    for table in tables:
        plot = f"\n![{table.title}]({to_plots}/{_file_name(table)})\n" if _has_plot(table) else ""
        parts.append(markdown(table) + plot)
    return "\n" + "\n".join(parts)


def _provenance(results: dict[str, Result]) -> str:
    """When, where and of what; one line a measurement, for each may be of another day."""
    lines = []
    for name, result in results.items():
        versions = ", ".join(f"{what} {version}" for what, version in result.versions.items())
        place = result.machine
        lines.append(
            f"* {name}: {result.taken_at[:16]} UTC, {result.rounds} round{'' if result.rounds == 1 else 's'};"
            f" {place['cores']} cores ({place['cpu']}), {place['memory']}, {place['system']};"
            f" load {place['load']} at the start; {versions}."
        )
    return "\n".join(lines) + "\n"


def _has_plot(table: Table) -> bool:
    return table.shape is not Shape.COST and any(series.values for series in table.series)


def _file_name(table: Table) -> str:
    return re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-") + ".png"
