"""How a reset is logged."""

from __future__ import annotations

from reproq_prefork.model.run import Status
from reproq_prefork.store.steward_store import (
    ResetRun,
)
from reproq_prefork.text.log import Log


def log_reset(log: Log, reset: tuple[ResetRun, ...], why: str) -> None:
    unstarted = [run.id for run in reset if not run.charged and run.status is Status.PENDING]
    if len(unstarted) > 1:  # the rest of a batch: these had not started
        several = f"runs {min(unstarted)} to {max(unstarted)} are PENDING again"
        log.warning(several, reason=why, runs=len(unstarted))
    for run in reset:
        if len(unstarted) == 1 or run.id not in unstarted:
            verdict = "PENDING again" if run.status is Status.PENDING else run.status.value
            one = f"run {run.id} is {verdict}"
            log.warning(one, reason=why, attempt_charged=run.charged)
