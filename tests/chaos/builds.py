"""The package with one of its guards taken out, as a checker must be able to tell."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "reproq_prefork"


@dataclass(frozen=True, slots=True)
class Change:
    """In one file: `old`, which stands there once, becomes `new`."""

    file: str
    old: str
    new: str


GUARDS: Mapping[str, tuple[Change, ...]] = {
    "the claim's token in the finish": (
        Change("store/sql/worker/finish_and_claim.sql", "and run.claims = settlement.claim and", "and"),
        # And what stands before it: a worker that was away first asks which runs it holds, and drops the others.
        Change(
            "worker/recording.py",
            "return [settlement for settlement in attempts if settlement.token in held]",
            "return [settlement for settlement in attempts]",
        ),
    ),
    "the kill of what a dead worker's task has started": (
        Change(
            "master/loop.py",
            "if kill.kill_own_descendants(spare=spared, within_s=ORPHANS_TIMEOUT_S):",
            "if spared is not None:",
        ),
    ),
    "the server's clock in the sweep": (
        Change(
            "store/sql/parts/expired_run.sql",
            "not between now() and",
            "not between to_timestamp(%(client_now)s) and",
        ),
        Change(
            "store/sql/parts/expired_run.sql",
            "and worker.lease_expires_at >= now()",
            "and worker.lease_expires_at >= to_timestamp(%(client_now)s)",
        ),
        Change(
            "store/steward_store.py",
            '"max_runs": SWEEP_BATCH,',
            '"max_runs": SWEEP_BATCH, "client_now": __import__("time").time(),',
        ),
    ),
    "the sweep": (
        Change(
            "steward/sweep_expired.py",
            "lambda only: store.sweep_expired(only=only), store.expired_runs",
            "lambda only: (), tuple",
        ),
    ),
    "the rollback of what an atomic task did": (
        Change(
            "django/perform/performing.py", "transaction.set_rollback(True, using=call.home.database)", "pass"
        ),
    ),
    "the cancel of what a lost host held": (
        Change(
            "store/sql/steward/sweep_expired.sql",
            "when run.cancel_requested_at is not null then 'CANCELLED'",
            "when false then 'CANCELLED'",
        ),
    ),
    "the notice to a worker that its run was cancelled": (
        Change(
            "steward/notice_cancels.py",
            "self._scoreboard.update_lease(slot, record, cancel_run_id=run_id, cancel_claim=claim)",
            "pass",
        ),
    ),
    "the wait that a Retry asks for": (
        Change("model/settlement.py", "delay_s = failure.retry_after_s", "delay_s = None"),
    ),
    "the limit on a task's memory": (
        Change(
            "unix/child_setup.py",
            "resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))",
            "pass",
        ),
    ),
    "the fence": (
        # A worker that believes in its lease for an hour ends no task before it is started elsewhere.
        Change("settings/__init__.py", "return self.lease_s - self.fence_margin_s", "return 3600.0"),
    ),
}


def without(guard: str, directory: Path) -> Path:
    """A copy of the package that lacks a guard; gives the directory to import it from."""
    copy = directory / "reproq_prefork"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    # In a checkout they lie beside the package.
    shutil.copytree(PACKAGE.parent / "migrations", directory / "migrations")
    for change in GUARDS[guard]:
        path = copy / change.file
        text = path.read_text()
        assert text.count(change.old) == 1, f"{change.file} has no line that says {change.old!r}"
        path.write_text(text.replace(change.old, change.new))
    return directory
