"""Reports failed attempts of Python tasks to the application: a log record, and `on_attempt_failed`."""

from __future__ import annotations

import logging

from reproq_prefork import hooks
from reproq_prefork.executors.process_ends import call_hooks
from reproq_prefork.model.outcome import Failure, Outcome
from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.model.settlement import RetryPolicy, is_last_attempt
from reproq_prefork.task_exceptions import Retry, verdict_of

log = logging.getLogger("reproq_prefork.task")
log.addHandler(logging.NullHandler())  # the worker's own log has the failure: it is not printed a second time


def report_failed_attempt(
    run: ClaimedRun, outcome: Outcome, error: BaseException, policy: RetryPolicy, *, logs_last: bool = True
) -> None:
    """Do nothing unless `outcome` is a failure. Called in the exception handler, for those who ask sys.exc_info.

    A `Retry` is logged as INFO: the task expected it. Everything else is logged as ERROR, with the traceback.
    `logs_last` False: somebody else logs the last attempt.
    """
    if not isinstance(outcome, Failure):
        return
    is_last = is_last_attempt(run, outcome, policy)
    if logs_last or not is_last:
        expected = isinstance(verdict_of(error), Retry) and not is_last
        log.log(
            logging.INFO if expected else logging.ERROR,
            "Task %s failed (run %s, attempt %s of %s)",
            run.task_path,
            run.id,
            run.attempt,
            policy.attempts_allowed(run.max_attempts),
            exc_info=None if expected else error,
        )
    if hooks.on_attempt_failed.functions:
        failed = hooks.FailedAttempt(
            run.id, run.task_path or "", run.queue_name, run.attempt, run.max_attempts, is_last, error
        )
        call_hooks(hooks.on_attempt_failed, _report, failed)


def _report(sentence: str) -> None:
    log.warning("%s", sentence)
