"""What tasks report to Sentry and OpenTelemetry arrives, whatever process they run in and however that ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.applications.collector import Collector
from tests.support.checkout import CHECKOUT
from tests.support.pages import code_blocks
from tests.support.supervisor.application import Application
from tests.support.supervisor.supervisor import Connection, Supervisor, wait_for_status
from tests.support.waiting import wait_until

TASKS = 20
HOWEVER_A_PROCESS_ENDS = pytest.mark.parametrize(
    ("executor", "max_tasks"),
    [("inline", "0"), ("inline", "1"), ("fork", "0"), ("fork", "1")],
    ids=[
        "inline, drained",
        "inline, each worker is replaced",
        "fork, drained",
        "fork, each worker is replaced",
    ],
)
SENTRY = """
import sentry_sdk
sentry_sdk.init("http://public@{address}/1")
from reproq_prefork import task

@task(max_attempts=1)
def fail(number):
    raise ValueError(f"failure {{number}}")

@task
def report(number):
    sentry_sdk.capture_message(f"message {{number}}")
"""
OTEL = """
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from reproq_prefork import task

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint="http://{address}/v1/traces")))
trace.set_tracer_provider(provider)

@task
def trace_it(number):
    with trace.get_tracer("tests").start_as_current_span(f"span-{{number:03d}}-"):
        pass
"""
HOOKS = """
import atexit, logging.handlers, os, time
from pathlib import Path
from reproq_prefork import *

DIARY = Path({diary!r})

def note(what):
    with DIARY.open("a") as diary:
        diary.write(f"{{what}}\\n")

handler = logging.handlers.MemoryHandler(1000, target=logging.FileHandler(DIARY))
logging.getLogger("app").addHandler(handler)
logging.getLogger("app").setLevel(logging.INFO)

@on_worker_start
def start():
    note("worker start")

@on_worker_start
def broken():
    raise RuntimeError("no cache")

@on_worker_stop
def stop():
    note("worker stop")

@on_worker_stop
def hangs():
    time.sleep(60)

@on_task_process_start
def begin():
    note("process start")

@on_task_process_end
def end():
    note("process end")

@on_attempt_failed
def failed(attempt):
    note(f"failed {{attempt.attempt}} {{attempt.is_last}} {{type(attempt.exception).__name__}}")

@task(max_attempts=2, retry_base=0.01)
def fail():
    logging.getLogger("app").info("logged")
    atexit.register(note, "at exit")
    1 / 0
"""


def host(database_url: str, application: Application, executor: str, **environ: str) -> Supervisor:
    return application.host(database_url, workers=2, environ={"REPROQ_EXECUTOR": executor, **environ})


def enqueue(connection: Connection, name: str, task: str) -> list[int]:
    """Runs of a task that this process does not import."""
    from reproq_prefork import Spec
    from reproq_prefork import enqueue as add

    specs = [Spec.python_task(f"{name}.{task}", [number], {}) for number in range(TASKS)]
    return [add(connection, spec, max_attempts=1).id for spec in specs]


@HOWEVER_A_PROCESS_ENDS
def test_all_events_for_sentry_arrive(
    database_url: str,
    connection: Connection,
    application: Application,
    collector: Collector,
    executor: str,
    max_tasks: str,
) -> None:
    application.write(SENTRY.format(address=collector.address))
    runs = enqueue(connection, application.name, "fail") + enqueue(connection, application.name, "report")
    with host(database_url, application, executor, REPROQ_MAX_TASKS=max_tasks) as supervisor:
        for run_id in runs:
            wait_for_status(connection, run_id, "SUCCESSFUL", "FAILED", timeout_s=40)
        assert supervisor.stop() == 0
    expected = [f"{what} {number}" for what in ("failure", "message") for number in range(TASKS)]
    assert collector.messages == sorted(expected)


@HOWEVER_A_PROCESS_ENDS
def test_all_spans_for_opentelemetry_arrive(
    database_url: str,
    connection: Connection,
    application: Application,
    collector: Collector,
    executor: str,
    max_tasks: str,
) -> None:
    application.write(OTEL.format(address=collector.address))
    runs = enqueue(connection, application.name, "trace_it")
    with host(database_url, application, executor, REPROQ_MAX_TASKS=max_tasks) as supervisor:
        for run_id in runs:
            wait_for_status(connection, run_id, "SUCCESSFUL", timeout_s=40)
        assert supervisor.stop() == 0
    sent = b"".join(collector.posts.get("/v1/traces", []))
    missing = [number for number in range(TASKS) if sent.count(b"span-%03d-" % number) != 1]
    assert missing == []


@pytest.mark.parametrize(
    ("executor", "of_a_process"),
    [
        ("inline", ["worker start", "failed 1 False ZeroDivisionError", "failed 2 True ZeroDivisionError"]),
        (
            "fork",
            ["worker start", "process start", "failed 1 False ZeroDivisionError", "process end", "at exit"],
        ),
    ],
)
def test_hooks_are_called_and_what_is_buffered_is_written(
    database_url: str,
    connection: Connection,
    application: Application,
    tmp_path: Path,
    executor: str,
    of_a_process: list[str],
) -> None:
    diary = tmp_path / "diary"
    application.write(HOOKS.format(diary=str(diary)))
    run = application.task("fail").enqueue(connection)
    diary.unlink(missing_ok=True)
    with host(database_url, application, executor) as supervisor:
        wait_for_status(connection, run.id, "FAILED")
        assert supervisor.stop() == 0
        log = supervisor.log()
    lines = diary.read_text().splitlines()
    for line in of_a_process:
        assert line in lines
    assert lines.count("worker start") == lines.count("worker stop") == 2
    assert lines.count("logged") == lines.count("at exit") == 2
    assert lines.count("process start") == lines.count("process end") == (2 if executor == "fork" else 0)
    assert log.count("broken has failed: RuntimeError: no cache") == 2
    assert log.count("on_worker_stop: was ended after 2 s") == 2
    wait_until(lambda: not supervisor.family(), 5, "all processes to end")


def test_the_example_of_the_page_works(
    database_url: str, connection: Connection, application: Application
) -> None:
    page = (CHECKOUT / "docs" / "applications.md").read_text()
    (example,) = code_blocks(page, "python")
    application.write(example)
    count = application.task("count")
    found = count.enqueue(connection, "sqlite_master").id
    failed = count.enqueue(connection, "nowhere").id
    with host(database_url, application, "inline") as supervisor:
        assert wait_for_status(connection, found, "SUCCESSFUL")["result"] == 0
        wait_for_status(connection, failed, "FAILED")
        assert supervisor.stop() == 0
        line = f"{application.name}.count failed 2 times: OperationalError('no such table: nowhere')"
        assert supervisor.log().count(line) == 1


def test_numpy_is_imported_once_for_all_workers_and_works_in_each_executor(
    database_url: str, connection: Connection, application: Application
) -> None:
    application.write(
        "import numpy, os, threading\n"
        "from reproq_prefork import task\n"
        "numpy.ones((400, 400)) @ numpy.ones((400, 400))  # its threads have worked\n"
        "@task\n"
        "def multiply(size):\n"
        "    return float((numpy.ones((size, size)) @ numpy.ones((size, size)))[0, 0])\n"
    )
    for executor in ("inline", "fork"):
        with host(database_url, application, executor) as supervisor:
            runs = [application.task("multiply").enqueue(connection, 300).id for _ in range(8)]
            for run_id in runs:
                row = wait_for_status(connection, run_id, "SUCCESSFUL")
                assert (row["result"], row["attempts"]) == (300.0, 1)
            assert supervisor.stop() == 0
            assert " WARN" not in supervisor.log()
