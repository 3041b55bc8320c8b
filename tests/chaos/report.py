"""The one page that is left of a storm, and its picture."""

from __future__ import annotations

import platform
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from reproq_prefork import __version__
from reproq_prefork.model.run import FINAL_STATUSES, Status
from tests.chaos.checker import RULES, Violation
from tests.chaos.executions import Story
from tests.chaos.history import Answer, Fault, History, Moment, Row
from tests.chaos.hosts import containers
from tests.chaos.kinds import BY_NAME
from tests.chaos.recovery import Recovery, recoveries

MAX_VIOLATIONS_SHOWN = 40
KILLS = "kill"
ENDS = (Status.SUCCESSFUL, Status.FAILED, Status.CANCELLED)


def page(history: History, violations: Sequence[Violation], *, seed: int, minutes: float) -> str:
    """Markdown."""
    lines = [
        f"# A storm of {minutes:g} minutes, seed {seed}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, reproq-prefork {__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.release()}.",
        "",
        containers(),
        "",
        *_counts(history),
        "",
        *_works(history),
        "",
        "## Faults and recovery",
        "",
        *_recovery(history),
        "",
        "## Rules",
        "",
        *_rules(violations),
    ]
    return "\n".join(lines) + "\n"


def _counts(history: History) -> Iterator[str]:
    statuses = Counter(row.status for row in history.rows)
    answers = Counter(told.answer for told in history.told)
    starts = Counter((page.run_id) for page in history.pages if page.moment is Moment.START)
    kills = sum(fault.kind.startswith(KILLS) for fault in history.faults)
    yield "| what | how many |"
    yield "|---|---|"
    yield f"| runs | {len(history.rows):,} |"
    for answer in Answer:
        yield f"| enqueued runs, answer: {answer.value} | {answers[answer]:,} |"
    for status, count in sorted(statuses.items()):
        yield f"| {status} at the end | {count:,} |"
    yield f"| executions | {starts.total():,} |"
    yield f"| runs that were executed more than once | {sum(count > 1 for count in starts.values()):,} |"
    yield from _more_counts(history)
    yield f"| faults | {len(history.faults):,} |"
    yield f"| of these, kills by SIGKILL | {kills:,} |"


def _more_counts(history: History) -> Iterator[str]:
    for answer, count in sorted(Counter(cancel.answer for cancel in history.cancels).items()):
        yield f"| cancels that were answered {answer} | {count:,} |"
    added = Counter(answer.created for answer in history.key_answers)
    yield f"| runs with a unique key that were added | {added[True]:,} |"
    yield f"| calls that got the run that holds their key | {added[False]:,} |"
    yield f"| attempts that ran out of memory | {sum(row.memory_errors for row in history.rows):,} |"
    yield f"| effects of atomic tasks | {len(history.effects):,} |"


def _works(history: History) -> Iterator[str]:
    """What there was to do, and how it ended."""
    starts = Counter(page.run_id for page in history.pages if page.moment is Moment.START)
    of_work: dict[str, list[Row]] = defaultdict(list)
    for row in history.rows:
        of_work[row.work].append(row)
    yield f"| runs of | runs | executed more than once | {' | '.join(ENDS)} |"
    yield f"|---|---|---|{'---|' * len(ENDS)}"
    for work, rows in sorted(of_work.items()):
        ends = Counter(row.status for row in rows)
        again = sum(starts[row.run_id] > 1 for row in rows)
        counts = [len(rows), again, *(ends[status] for status in ENDS)]
        yield f"| {work} | {' | '.join(f'{count:,}' for count in counts)} |"


def _recovery(history: History) -> Iterator[str]:
    """How long it took from the end of a fault until what it had broken off was free, and ran again."""
    faults = Counter(fault.kind for fault in history.faults)
    found: dict[str, list[Recovery]] = defaultdict(list)
    for recovery in recoveries(Story(history)):
        found[recovery.fault.kind].append(recovery)
    yield "Seconds; of spreads the median, the 99th percentile and the greatest."
    yield ""
    yield "| fault | row | times | bound | runs broken off | free again after | run again after | late |"
    yield "|---|---|---|---|---|---|---|---|"
    for kind, times in sorted(faults.items()):
        of_kind = found[kind]
        row, bound = (BY_NAME[kind].row, f"{BY_NAME[kind].recovery_s:g}") if kind in BY_NAME else ("", "")
        free = _spread([each.free_s for each in of_kind])
        again = _spread([each.again_s for each in of_kind if each.again_s is not None])
        late = sum(each.late_s > 0 for each in of_kind)
        yield f"| {kind} | {row} | {times} | {bound} | {len(of_kind)} | {free} | {again} | {late or ''} |"


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return ""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"{statistics.median(ordered):.2f} / {p99:.2f} / {ordered[-1]:.2f}"


def _rules(violations: Sequence[Violation]) -> Iterator[str]:
    broken = Counter(violation.rule for violation in violations)
    yield "| rule | broken |"
    yield "|---|---|"
    for rule in RULES:
        yield f"| {rule} | {broken[rule]} |"
    if violations:
        yield ""
        for violation in violations[:MAX_VIOLATIONS_SHOWN]:
            yield f"* {violation.rule}: {violation.what}"


def plot(history: History, path: Path) -> None:
    """Runs ended a second, with the faults marked. Without matplotlib there is none."""
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    start = min((edge.at for edge in history.edges), default=0.0)
    ended = Counter(int(edge.at - start) for edge in history.edges if edge.new in FINAL_STATUSES)
    seconds = range(max(ended, default=0) + 1)
    figure, (rate, faults) = plt.subplots(
        2, 1, sharex=True, figsize=(12, 7), height_ratios=(2, 3), layout="constrained"
    )
    rate.plot(seconds, [ended[second] for second in seconds], linewidth=0.8)
    rate.set_ylabel("runs ended a second")
    rate.axvline(history.healed_at - start, color="green", linestyle=":", label="healed")
    rate.legend(loc="upper right")
    narrowest_s = len(seconds) / 300  # what is over at once is to be seen as well
    for place, (kind, of_kind) in enumerate(_by_kind(history.faults).items()):
        faults.barh(
            [place] * len(of_kind),
            [max(narrowest_s, fault.until - fault.at) for fault in of_kind],
            left=[fault.at - start for fault in of_kind],
            height=0.6,
            label=kind,
        )
    faults.set_yticks(range(len(_by_kind(history.faults))), list(_by_kind(history.faults)))
    faults.set_xlabel("seconds")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _by_kind(faults: Sequence[Fault]) -> Mapping[str, list[Fault]]:
    found: dict[str, list[Fault]] = {}
    for fault in sorted(faults, key=lambda fault: fault.kind, reverse=True):
        found.setdefault(fault.kind, []).append(fault)
    return found
