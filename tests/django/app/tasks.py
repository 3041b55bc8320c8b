"""Tasks of the tests' site, declared as its users declare theirs: by Django's own decorator, or the backport's."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import sys
import time
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import django
import psutil
from django.db import DatabaseError, connection, transaction
from django.utils import timezone, translation

from reproq_prefork.django import Discard, Retry, Snooze, TaskCancelled, TaskTimeout, reproq_options
from tests.django.app.models import Note
from tests.django.app.routers import Changeable

if TYPE_CHECKING or django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task

STEP_S = 0.05
_trace = ContextVar("_trace", default="none")


def _version() -> int:
    """What a deploy changes: the number in the file that REPROQ_TEST_VERSION names, read as code."""
    path = os.environ.get("REPROQ_TEST_VERSION")
    if path is None:
        return 0
    spec = importlib.util.spec_from_file_location("reproq_test_version", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return int(module.VERSION)


VERSION = _version()


@task
def add(a: int, b: int) -> int:
    return a + b


@task
def leave_a_transaction_open(text: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("begin")
    Note.objects.create(text=text)


@task
def turn_autocommit_off(text: str) -> None:
    transaction.set_autocommit(False)
    Note.objects.create(text=text)


@task
def change_what_django_keeps_for_a_request() -> list[str]:
    """What was set before it, and what it sets itself."""
    found = [translation.get_language(), timezone.get_current_timezone_name(), _trace.get()]
    translation.activate("eo")
    timezone.activate("Asia/Tokyo")
    _trace.set("of a task")
    return found


@task
async def add_asynchronously(a: int, b: int) -> int:
    return a + b


@task
def fail(message: str) -> None:
    raise ValueError(message)


@task
def write_note(text: str) -> int:
    return Note.objects.create(text=text).pk


@task
def write_note_and_fail(text: str) -> None:
    Note.objects.create(text=text)
    raise ValueError("after the note was written")


@task(queue_name="mail", priority=10)
def send_mail(to: str) -> str:
    return f"sent to {to}"


@task
def wait_for_file(path: str) -> str:
    """Runs until the test makes the file."""
    while not Path(path).exists():
        time.sleep(STEP_S)
    return path


@task(takes_context=True)
def tell_id_and_attempt(context: Any) -> list[Any]:
    return [context.task_result.id, context.attempt]


@task(takes_context=True)
def tell_how_it_was_enqueued(context: Any) -> list[Any]:
    own = context.task_result.task
    return [own.queue_name, own.priority, str(own.run_after)]


@task(takes_context=True)
def tell_seconds_since_its_times(context: Any) -> list[float]:
    own = context.task_result
    moments = (own.enqueued_at, own.started_at, own.last_attempted_at)
    return [(timezone.now() - moment).total_seconds() for moment in moments]


@task(takes_context=True)
def count_until_cancelled(context: Any) -> int:
    """Says how far it is, and puts things in order once it is cancelled, which takes a second; a returned value is
    its success."""
    count = 0
    with contextlib.suppress(TaskCancelled):
        while True:
            count += 1
            context.save_metadata({"count": count})
            time.sleep(STEP_S)
    assert context.cancelled
    time.sleep(1)
    return count


@task(takes_context=True)
def cancel_itself_and_fail(context: Any) -> None:
    context.task_result.cancel()
    raise ValueError("after it was cancelled")


@task(takes_context=True)
def cancel_the_next(context: Any, count: int, seconds: float) -> None:
    """Those that were enqueued after it; then it takes so long that nothing waits behind it."""
    own = context.task_result
    for run_id in range(int(own.id) + 1, int(own.id) + 1 + count):
        own.task.get_backend().cancel(str(run_id))
    time.sleep(seconds)


@task
@reproq_options(max_attempts=5, timeout=30, retry_base=0.5, retry_max=timedelta(minutes=1), executor="inline")
def patient() -> None: ...


@task
def with_option_names(timeout: int, unique: bool, max_attempts: int, priority: int) -> None: ...


@task
@reproq_options(unique=True)
def unique(number: int) -> None: ...


@task
@reproq_options(unique=lambda order, note="": f"order {order}")
def unique_by_order(order: int, note: str = "") -> None: ...


@task
async def write_note_asynchronously(text: str) -> None:
    await Note.objects.acreate(text=text)


@task
def enqueue_another(number: int) -> int:
    if number:
        enqueue_another.enqueue(number - 1)
    return number


@task
def discard(why: str) -> None:
    raise Discard(why)


@task(takes_context=True)
def retry_until(context: Any, attempt: int) -> int:
    if context.attempt < attempt:
        raise Retry(after=60)
    return int(context.attempt)


@task(takes_context=True)
@reproq_options(max_attempts=1)
def poll(context: Any, claims: int, after: float) -> int:
    """Finds what it looks for when it has been claimed so often."""
    if context.claim < claims:
        context.save_metadata(looked=context.claim)
        raise Snooze("not there yet", after=after)
    return int(context.attempt)


@task
async def poll_asynchronously(after: float) -> None:
    raise Snooze(after=after)


@task
@reproq_options(atomic=True)
def write_note_and_snooze(text: str, after: float) -> None:
    Note.objects.create(text=text)
    raise Snooze(after=after)


@task
def interrupt() -> None:
    raise KeyboardInterrupt  # as by Ctrl-C, which came while this ran


@task
def leave() -> None:
    sys.exit(0)


@task
def give(what: str) -> Any:
    return {"a set": {1}, "a tuple of bytes": (b"a", (b"b",))}[what]


@task(takes_context=True)
def progress(context: Any) -> None:
    context.save_metadata({"step": 1, "of": 2})
    context.save_metadata(step=2, claim=context.claim)


@task
@reproq_options(atomic=True)
def write_note_atomically(text: str) -> str:
    Note.objects.create(text=text)
    if text == "fail":
        raise ValueError(text)
    return text


@task
@reproq_options(atomic=True)
def write_note_and_fail_after_the_commit(text: str) -> str:
    transaction.on_commit(lambda: fail.call("too late"))
    Note.objects.create(text=text)
    return text


@task
@reproq_options(atomic=True)
def write_what_the_commit_refuses() -> None:
    """A foreign key of Django's is looked at in the end."""
    Note.objects.create(text="before")
    with connection.cursor() as cursor:
        cursor.execute("insert into auth_user_groups (user_id, group_id) values (0, 0)")


@task
@reproq_options(atomic=True)
def write_note_and_return_a_set() -> Any:
    Note.objects.create(text="before")
    return {1}


@task
@reproq_options(atomic=True)
def write_note_and_return_a_nul() -> Any:
    """JSON, and nothing that PostgreSQL can keep."""
    Note.objects.create(text="before")
    return "\0"


@task
@reproq_options(atomic=True)
def write_note_and_lose_the_run() -> None:
    """As if its lease had ended and another worker had claimed it."""
    Note.objects.create(text="of a stale attempt")
    with connection.copy().cursor() as cursor:
        cursor.execute("update task_runs set claims = claims + 1 where status = 'RUNNING'")
        cursor.connection.close()


@task
def write_two_notes_with_one_key() -> None:
    Note.objects.create(pk=1, text="one")
    Note.objects.create(pk=1, text="two")


@task
def sleep(seconds: float) -> None:
    time.sleep(seconds)


@task
def answer_at_the_deadline() -> str:
    try:
        time.sleep(30)
    except TaskTimeout:
        return "in time"
    return "never told"


@task
def be_stubborn(diary: str) -> None:
    """Notes when it was told what, and goes on."""
    said = "started"
    while True:
        with Path(diary).open("a") as file:
            file.write(f"{said} {time.monotonic()}\n")
        try:
            time.sleep(30)
        except BaseException as told:
            said = type(told).__name__


@task
def kill_its_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task
def say(text: str) -> None:
    print(text)


@task
def tell_pid() -> int:
    return os.getpid()


@task
def tell_version() -> int:
    return VERSION


@task
def tell_local_port() -> int:
    """The port of this process' own connection to the database."""
    connection.ensure_connection()
    with socket.socket(fileno=os.dup(connection.connection.pgconn.socket)) as own:
        return int(own.getsockname()[1])


@task
def tell_sockets() -> list[int]:
    """The local ports of all sockets that this process has."""
    connection.ensure_connection()
    return [each.laddr[1] for each in psutil.Process().net_connections() if len(each.raddr)]


@task(takes_context=True)
@reproq_options(atomic=True)
def write_note_with_progress(context: Any, text: str) -> None:
    context.save_metadata(step=1)
    Note.objects.create(text=text)
    context.save_metadata(step=2)


@task(takes_context=True)
def look_at_itself(context: Any, name: str) -> list[str]:
    context.task_result.refresh()
    return [str(context.task_result.status), *context.task_result.args]


@task(takes_context=True)
@reproq_options(atomic=True)
def redirect(context: Any, name: str) -> list[str]:
    """From now on the router leads elsewhere."""
    Changeable.alias = "other"
    context.save_metadata(name=name)
    context.task_result.refresh()
    return list(context.task_result.args)


@task
@reproq_options(atomic=True)
def write_note_slowly(text: str, seconds: float) -> None:
    Note.objects.create(text=text)
    time.sleep(seconds)


@task
@reproq_options(atomic=True)
def swallow_a_database_error() -> None:
    Note.objects.create(text="before")
    with contextlib.suppress(DatabaseError), connection.cursor() as cursor:
        cursor.execute("select 1 / 0")


@task
@reproq_options(atomic=True)
def mark_for_rollback() -> None:
    Note.objects.create(text="before")
    transaction.set_rollback(True)


@task
def tell_server_process() -> int:
    """The server's process for this process' connection."""
    with connection.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])


@task
def sign(path: str, number: int) -> None:
    """One write, so that two processes do not mix theirs."""
    with Path(path).open("a") as diary:
        diary.write(f"{number}\n")


@task(takes_context=True)
def wait_in_a_query(context: Any, seconds: float) -> None:
    """At its end it asks the same connection for its own number."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("select pg_sleep(%s)", [seconds])
    except TaskTimeout:
        context.save_metadata(server_process=tell_server_process.call())
        raise


@task
def leave_a_query_unread(seconds: float) -> None:
    connection.ensure_connection()
    connection.connection.pgconn.send_query(f"select pg_sleep({seconds})".encode())
    time.sleep(seconds)


@task
def read_setting(name: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute("select current_setting(%s)", [name])
        return str(cursor.fetchone()[0])


# Django 6.0 takes no others than its own here.
TAKES_OPTIONS = not (6, 0) <= django.VERSION[:2] < (6, 1)
_task: Any = task


@_task(**({"max_attempts": 7, "timeout": 9, "atomic": True} if TAKES_OPTIONS else {}))  # type: ignore[untyped-decorator]
def with_options_of_its_own() -> None: ...
