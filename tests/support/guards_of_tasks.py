"""Guards of what runs tasks, in their own processes and in Django."""

from __future__ import annotations

from collections.abc import Sequence

from tests.chaos.builds import Change
from tests.support.guard import Guard

PERF = "tests/django/test_performing.py"
WELL = "tests/django/test_workers.py::test_a_cancelled_task_may_still_succeed"
STUB = (
    "tests/django/test_workers.py::test_a_cancelled_task_that_ignores_its_exception_is_killed_after_a_grace"
)

TASKS: Sequence[Guard] = (
    Guard(
        "a tree is stopped before it is killed",
        [Change("unix/kill.py", "send_signal(pid, signal.SIGSTOP)", "pass")],
        ["tests/unit/unix/test_proc.py"],
    ),
    Guard(
        "a worker ends its task before its lease is over",
        [
            Change(
                "worker/task_watch.py",
                "if self._panel.lease().lost or now >= self._panel.lease_end_ns():",
                "if self._panel.lease().lost:",
            )
        ],
        [
            "tests/unit/worker/test_task_watch.py",
            "tests/faults/test_master_faults.py"
            "::test_09_without_a_steward_a_worker_ends_its_task_before_its_lease_ends",
        ],
    ),
    Guard(
        "an atomic task without a usable result has no effects",
        [
            Change(
                "django/perform/performing.py",
                "transaction.set_rollback(True, using=call.home.database)",
                "pass",
            ),
        ],
        [PERF],
    ),
    Guard(
        "an end that nobody can be asked about is not told",
        [
            Change(
                "django/perform/performing.py",
                "if not _is_completed(call):\n                return AttemptReport(failed)",
                "if not _is_completed(call):\n                return self._ended(call, failed)",
            ),
        ],
        [PERF],
    ),
    Guard(
        "a lost run's end is not told",
        [
            Change("django/perform/performing.py", "if isinstance(error, RunLost):", "if False:"),
        ],
        [PERF],
    ),
    Guard(
        "a fork has no connection of its worker",
        [
            Change(
                "django/perform/performing.py", "self._inherited = forget_inherited_connections()", "pass"
            ),
        ],
        ["tests/django/test_connections.py"],
    ),
    Guard(
        "a cancelled task has time to end well",
        [
            Change(
                "executors/process_io.py",
                "(CANCEL_GRACE_S if stop is Stop.CANCEL else TERM_GRACE_S)",
                "0.0",
            ),
        ],
        [WELL],
    ),
    Guard(
        "a cancelled inline task has time to end well",
        [
            Change("executors/inline.py", "self._kill_at = now + CANCEL_GRACE_S", "self._kill_at = now"),
        ],
        [WELL],
    ),
    Guard(
        "an inline task that will not hear is killed",
        [
            Change("executors/inline.py", "            self._kill_after_grace()\n", "            pass\n"),
        ],
        [STUB],
    ),
)
