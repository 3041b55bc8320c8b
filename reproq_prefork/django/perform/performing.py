"""One run of a Django task in this process: signals, context, connections, the transaction of an atomic task."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import time
from collections.abc import Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from asgiref.sync import async_to_sync
from django.db import DatabaseError, Error, close_old_connections, transaction
from django.utils import timezone

from reproq_prefork.django.families.compat import Family, family_of
from reproq_prefork.django.families.contexts import context_class_of
from reproq_prefork.django.families.results import (
    end,
    history_of,
    result_of_claim,
    result_of_run,
    task_errors,
)
from reproq_prefork.django.perform.connections import (
    caches_need_closing,
    close_after_task,
    close_open_transactions,
    forget_inherited_connections,
)
from reproq_prefork.django.perform.runs_database import HeldRun, Home, RunsDatabase
from reproq_prefork.django.project.loading import load_task
from reproq_prefork.errors import ReproqError
from reproq_prefork.executors.contract import SoftStop, Stop
from reproq_prefork.executors.failed_attempts import report_failed_attempt
from reproq_prefork.executors.program_output import MAX_MESSAGE_CHARS
from reproq_prefork.executors.python_outcome import (
    dotted_name,
    failure_of,
    outcome_of_error,
    outcome_of_result,
    storable,
    traceback_of,
)
from reproq_prefork.model.limits import MAX_RESULT_BYTES
from reproq_prefork.model.outcome import (
    AttemptReport,
    Cancelled,
    Completed,
    Failure,
    FailureKind,
    Outcome,
    Success,
    Usage,
)
from reproq_prefork.model.run import ClaimedRun, Status
from reproq_prefork.model.settlement import RetryPolicy, error_entry, is_last_attempt, usage_text
from reproq_prefork.spec import canonical_json
from reproq_prefork.tasks.call import NotACall, read_call
from reproq_prefork.tasks.loader import NotAllowed, TaskNotFound, allowed_modules

_log = logging.getLogger("reproq_prefork.django")


OLD_AGAIN_S = 1.0  # connections that were checked after the previous task are not checked again so soon


class RunLost(ReproqError):
    """This attempt has lost the run, so the transaction of its effects must not be committed."""


class _Performance(NamedTuple):
    """A run, and the task that it executes."""

    run: ClaimedRun
    task: Any
    home: Home
    family: Family
    result: Any
    started: resource.struct_rusage | None  # this process's usage at the start; only for an atomic task

    @property
    def row(self) -> HeldRun:
        return HeldRun(self.home.database, self.run)

    def send(self, signal: str) -> None:
        """Django logs a receiver that fails. The task is not affected."""
        getattr(self.family.signals, signal).send_robust(type(self.home.backend), task_result=self.result)


class _Known(NamedTuple):
    """A task that a payload names, with its backend. `as_enqueued`: with the queue and priority of the run."""

    task: Any
    family: Family
    home: Home
    as_enqueued: Any


_Wanted = tuple[str, str, int, datetime | None]  # path, queue, priority and time


class Performer:
    """`database`: the one from which runs are claimed. No other is read or written for a run.

    `allowed`: the modules that may hold tasks, among those that the backend's OPTIONS allow; None: all of these.
    `owns_connections`: this process exists only for tasks, so it may close Django's connections.
    """

    def __init__(
        self,
        policy: RetryPolicy,
        database: RunsDatabase,
        *,
        allowed: Sequence[str] | None = None,
        owns_connections: bool = True,
    ) -> None:
        self._policy = policy
        self._database = database
        self._is_allowed = None if allowed is None else allowed_modules(allowed)
        self._owns_connections = owns_connections
        self._pid = os.getpid()
        self._inherited: list[object] = []
        self._known: dict[_Wanted, _Known] = {}
        self._closed_old_at = 0.0
        self._closes_caches = owns_connections and caches_need_closing()

    def perform(self, run: ClaimedRun, stop: SoftStop) -> AttemptReport:
        self._check_connections()
        try:
            try:
                call = self._prepared(run)
            except (NotACall, NotAllowed) as refusal:
                return AttemptReport(Failure(FailureKind.NOT_ALLOWED, str(refusal), retry=False))
            except TaskNotFound as trouble:
                return AttemptReport(failure_of(trouble.__cause__ or trouble, str(trouble)))
            except Exception as error:
                return AttemptReport(outcome_of_error(error, None))
            call.send("task_started")
            return self._perform_atomic(call, stop) if run.atomic else self._perform(call, stop)
        finally:
            self._close_connections(was_stopped=stop.requested is not None)

    def announce(self, run_id: int) -> None:
        """Send task_finished for a run that another process has ended."""
        self._check_connections()
        try:
            self._announce(run_id)
        finally:
            self._close_connections(was_stopped=False)

    def _announce(self, run_id: int) -> None:
        try:
            run = self._database.read(run_id)
            found = None if run.task_path is None else load_task(run.task_path)
        except ReproqError:
            return  # the run or its module is gone meanwhile: there is nothing to announce
        family = family_of(found)
        if family is None:
            return
        backend, database = self._database.home_of(run.queue_name, found, family)
        task = backend.task_of(run, found, run.run_after)
        result = result_of_run(run, task, family, backend.alias, database)
        family.signals.task_finished.send_robust(type(backend), task_result=result)

    def _prepared(self, run: ClaimedRun) -> _Performance:
        """Raises NotACall, NotAllowed and TaskNotFound."""
        assert run.payload is not None
        call = read_call(run.payload)
        history = history_of(run)
        known = self._known_of(run, call.path, history.run_after)
        return _Performance(
            run=run,
            task=known.task,
            home=known.home,
            family=known.family,
            result=result_of_claim(run, history, call, known.as_enqueued, known.family, known.home.database),
            started=resource.getrusage(resource.RUSAGE_SELF) if run.atomic else None,
        )

    def _known_of(self, run: ClaimedRun, path: str, run_after: datetime | None) -> _Known:
        """What was found once stays valid, as the imported modules and the settings do."""
        wanted = path, run.queue_name, run.priority, run_after
        known = self._known.get(wanted)
        if known is None:
            task = load_task(path, is_allowed=self._is_allowed)
            family = family_of(task)
            assert family is not None
            home = self._database.home_of(run.queue_name, task, family)
            known = _Known(task, family, home, home.backend.task_of(run, task, run_after))
            if run_after is None:  # otherwise it fits no other run
                self._known[wanted] = known
        return known

    def _perform(self, call: _Performance, stop: SoftStop) -> AttemptReport:
        try:
            outcome = self._outcome_of_body(call, stop)
            if self._owns_connections:
                outcome = close_open_transactions() or outcome
        except BaseException as error:
            failed = outcome_of_error(error, stop.requested)
            self._report(call, failed, error)
            return self._ended(call, failed)
        return self._ended(call, outcome)

    def _perform_atomic(self, call: _Performance, stop: SoftStop) -> AttemptReport:
        committing: Success | None = None
        try:
            with transaction.atomic(using=call.home.database):
                outcome = self._outcome_of_body(call, stop)
                if isinstance(outcome, Failure):
                    transaction.set_rollback(True, using=call.home.database)
                else:
                    self._complete(call, outcome.result)
                    committing = outcome
        except BaseException as error:
            failed = outcome_of_error(error, stop.requested)
            if isinstance(error, RunLost):
                return AttemptReport(failed)  # this attempt may not announce the end
            if committing is None:
                self._report(call, failed, error)
                return self._ended(call, failed)
            if not _is_completed(call):
                return AttemptReport(failed)
            # A function of on_commit() has failed, or the answer was lost. The commit is not undone.
            _log.exception("run %s is completed, but something failed after its commit", call.run.id)
            outcome = committing
        report = self._ended(call, outcome)
        if isinstance(outcome, Failure):
            return report
        with contextlib.suppress(DatabaseError):  # then it is announced once more
            call.row.announced()
        return AttemptReport(Completed(), announced=True)

    def _report(self, call: _Performance, outcome: Outcome, error: BaseException) -> None:
        """Django logs the end of a task, and so its last attempt."""
        report_failed_attempt(call.run, outcome, error, self._policy, logs_last=False)

    def _outcome_of_body(self, call: _Performance, stop: SoftStop) -> Success | Failure:
        """The task's result as JSON, or a failure if it is not JSON. Raises what the task raises."""
        args = call.result.args
        if call.task.takes_context:
            args = [self._context(call, stop), *args]
        value = stop.call(call.task.func, args, call.result.kwargs, run_coroutine=_run_coroutine)
        try:
            value = call.family.normalize_json(value)
        except (TypeError, ValueError, RecursionError) as error:
            return Failure(
                FailureKind.UNUSABLE_OUTPUT,
                storable(f"the result of the task is not JSON: {error}")[:MAX_MESSAGE_CHARS],
                exception=dotted_name(type(error)),
                traceback=traceback_of(error),
                retry=False,
            )
        outcome = outcome_of_result(value)
        if isinstance(outcome, Success):
            object.__setattr__(call.result, "_return_value", value)
        return outcome

    def _context(self, call: _Performance, stop: SoftStop) -> Any:
        def save(metadata: Mapping[str, Any]) -> None:
            said = canonical_json(metadata)
            if len(said.encode()) > MAX_RESULT_BYTES:
                raise ValueError(
                    f"the metadata is {len(said):,} bytes of JSON, the limit is {MAX_RESULT_BYTES:,}"
                )
            call.row.save_metadata(said)

        return context_class_of(call.family)(
            task_result=call.result,
            claim=call.run.claim,
            _is_cancelled=lambda: stop.requested is Stop.CANCEL,
            _save=save,
        )

    def _complete(self, call: _Performance, text: str) -> None:
        assert call.started is not None
        now = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = now.ru_utime + now.ru_stime - call.started.ru_utime - call.started.ru_stime
        usage = Usage("returned", cpu_s, now.ru_maxrss)
        if not call.row.complete(result=text, last_attempt=usage_text(usage)):
            raise RunLost("another attempt has got the run meanwhile, so nothing of this one was saved")

    def _ended(self, call: _Performance, outcome: Outcome) -> AttemptReport:
        """Announce the end, if it is one. Called in the exception handler, so that signal receivers can log it."""
        match outcome:
            case Success():
                status, errors = Status.SUCCESSFUL, call.result.errors
            case Failure() if is_last_attempt(call.run, outcome, self._policy):
                status, errors = Status.FAILED, _with_error(call, error_entry(outcome))
            case Cancelled(reason):
                entry = {"kind": FailureKind.CANCELLED, "message": reason}
                status, errors = Status.CANCELLED, _with_error(call, entry)
            case _:
                return AttemptReport(outcome)  # it will run again, or another process decides
        end(call.result, call.family, status, timezone.now(), errors=errors)
        call.send("task_finished")
        return AttemptReport(outcome, announced=True)

    def _check_connections(self) -> None:
        """As Django does before a request: close broken and old connections, keep persistent ones."""
        if not self._owns_connections:
            return
        if os.getpid() != self._pid:
            self._pid = os.getpid()
            self._inherited = forget_inherited_connections()
        if time.monotonic() - self._closed_old_at > OLD_AGAIN_S:
            close_old_connections()

    def _close_connections(self, *, was_stopped: bool) -> None:
        """The same after a request."""
        if not self._owns_connections:
            return
        close_after_task(was_stopped=was_stopped, closes_caches=self._closes_caches)
        self._closed_old_at = time.monotonic()


def _is_completed(call: _Performance) -> bool:
    """Whether this attempt is recorded as successful. Also False if that is unknown: then the fence decides."""
    try:
        return call.row.is_completed()
    except (Error, ReproqError):
        return False


def _with_error(call: _Performance, entry: Mapping[str, Any]) -> list[Any]:
    return [*call.result.errors, *task_errors([entry], call.family)]


def _run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return async_to_sync(_await)(coroutine)


async def _await(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await coroutine
