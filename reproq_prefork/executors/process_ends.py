"""What an application expects at the beginning and at the end of a process that runs its tasks.

Our processes end by `os._exit`, because the callers on their stacks, and the finalizers of what they inherited,
belong to other processes. So what an interpreter does at its end is done here: buffered log records and telemetry
are sent, and `atexit` functions are called.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import sys
import weakref
from collections.abc import Callable

from reproq_prefork import hooks
from reproq_prefork.unix.time_limit import time_limit

Report = Callable[[str], object]

# Where OpenTelemetry keeps its providers: module, and the function that returns one.
_OTEL_PROVIDERS = (
    ("opentelemetry.trace", "get_tracer_provider"),
    ("opentelemetry.metrics", "get_meter_provider"),
    ("opentelemetry._logs", "get_logger_provider"),
)


def begin_task_process(report: Report) -> None:
    """In the fork of a task. What was registered or buffered before the fork belongs to the worker."""
    atexit._clear()
    for handler in _handlers():
        buffer = getattr(handler, "buffer", None)
        if isinstance(buffer, list):
            buffer.clear()
    call_hooks(hooks.on_task_process_start, report)


def end_task_process(report: Report) -> None:
    """Call on_task_process_end, send what is buffered, and call what the task has registered with `atexit`."""
    if hooks.on_task_process_end.functions or _has_telemetry() or atexit._ncallbacks():
        _end(hooks.on_task_process_end, report)
    else:
        # Not within a time limit: in a fork, setting one up takes longer than a short task.
        _flush_logs()


def begin_worker(report: Report, *, is_fork: bool) -> None:
    """`is_fork`: it has inherited the imported application from a template, and shares its temporary files."""
    if is_fork:
        for info in weakref.finalize._registry.values():  # type: ignore[attr-defined]
            info.atexit = False  # such as the removal of a temporary directory
    call_hooks(hooks.on_worker_start, report)


def end_worker(report: Report) -> None:
    """Call on_worker_stop, send what is buffered, and call what was registered with `atexit`."""
    _end(hooks.on_worker_stop, report)


def call_hooks(moment: hooks.Moment, report: Report, *arguments: object) -> None:
    """Call the functions of a moment within their time. `report` gets a sentence for each that fails."""
    if moment.functions:
        with time_limit(hooks.LIMIT_S, report=lambda why: report(f"{moment.name}: {why}")):
            moment.call(report, *arguments)


def _end(moment: hooks.Moment, report: Report) -> None:
    """In this order, since a function of the application, or of `atexit`, may log and send too."""
    call_hooks(moment, report)
    with time_limit(hooks.LIMIT_S, report=lambda why: report(f"what is sent at the end of a process {why}")):
        try:
            atexit._run_exitfuncs()
        except Exception as error:
            report(f"a function registered with atexit has failed: {type(error).__name__}: {error}")
        flush_telemetry(hooks.LIMIT_S, report)
        _flush_logs()


def _has_telemetry() -> bool:
    return "sentry_sdk" in sys.modules or "opentelemetry.sdk" in sys.modules


def flush_telemetry(timeout_s: float, report: Report) -> None:
    """Send what Sentry and OpenTelemetry have not sent yet, where they are loaded."""
    try:
        if "sentry_sdk" in sys.modules:
            sys.modules["sentry_sdk"].flush(timeout=timeout_s)
        if "opentelemetry.sdk" in sys.modules:
            for module, getter in _OTEL_PROVIDERS:
                provider = getattr(sys.modules.get(module), getter, lambda: None)()
                force_flush = getattr(provider, "force_flush", None)
                if force_flush is not None:
                    force_flush(int(timeout_s * 1000))
    except Exception as error:
        report(f"telemetry could not be sent: {type(error).__name__}: {error}")


def _flush_logs() -> None:
    for handler in _handlers():
        with contextlib.suppress(Exception):  # as in `logging.shutdown`: its stream may be closed
            handler.flush()


def _handlers() -> list[logging.Handler]:
    """All handlers, the newest first: what forwards to another handler is flushed before that one."""
    found = (reference() for reference in reversed(logging._handlerList))  # type: ignore[attr-defined]
    return [handler for handler in found if handler is not None]
