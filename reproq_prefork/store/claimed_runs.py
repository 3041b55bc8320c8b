"""Turns the rows of a claim into runs. The claim is already committed, so one bad row must not lose the others."""

from __future__ import annotations

from collections.abc import Sequence

from reproq_prefork.model.run import ClaimedRun, UnreadableRun
from reproq_prefork.store.row_by_row import RowByRow

CLAIMED_FIELDS = len(ClaimedRun._fields)  # the next column says why the row is unreadable


def claimed_runs(
    rows: Sequence[Sequence[object]],
) -> tuple[Sequence[ClaimedRun], Sequence[UnreadableRun]]:
    """The runs of rows that begin with `parts/claimed_columns.sql`, and those that must not be executed."""
    if not isinstance(rows, RowByRow) and all(row[CLAIMED_FIELDS] is None for row in rows):
        return [ClaimedRun._make(row[:CLAIMED_FIELDS]) for row in rows], ()
    runs: list[ClaimedRun] = []
    unreadable: list[UnreadableRun] = []
    for number, row in enumerate(rows):
        run = ClaimedRun._make(row[:CLAIMED_FIELDS])
        why = row[CLAIMED_FIELDS]
        if why is None and isinstance(rows, RowByRow):
            why = rows.why.get(number)
        if why is None:
            runs.append(run)
        else:
            unreadable.append(UnreadableRun(run, str(why)))
    return runs, unreadable
