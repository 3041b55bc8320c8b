"""Real forks, a watch that a test controls, and no database."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reproq_prefork.executors import process_io
from reproq_prefork.executors.contract import NoProcess, Stop
from reproq_prefork.executors.forked import MAX_OUTPUT_BYTES, ForkExecutor
from reproq_prefork.model.limits import MAX_RESULT_BYTES
from reproq_prefork.model.outcome import (
    Abandoned,
    AttemptReport,
    Cancelled,
    Failure,
    FailureKind,
    Interrupted,
    Outcome,
    Success,
)
from reproq_prefork.task_exceptions import Discard, Retry, TaskCancelled, TaskTimeout
from reproq_prefork.unix import proc
from reproq_prefork.unix.signals import SignalInbox
from tests.support.fakes.runs import a_run
from tests.support.fakes.watch import FakeWatch
from tests.support.unix.children import links_of_fds
from tests.support.unix.worker_process import FunctionRuntime, ending_of, in_a_worker
from tests.support.waiting import wait_until


def run(
    function: Callable[[], Any], watch: FakeWatch | None = None, *, announces: bool = False
) -> AttemptReport:
    return ending_of(ForkExecutor, function, watch, announces=announces)


def failure_of(function: Callable[[], Any], watch: FakeWatch | None = None) -> Failure:
    outcome = run(function, watch).outcome
    assert isinstance(outcome, Failure)
    return outcome


def output_of(function: Callable[[], Any]) -> str | None:
    usage = run(function).usage
    assert usage is not None
    return usage.output


def stay(ready: Path) -> None:
    ready.touch()
    while True:
        time.sleep(0.01)


# --- how it ends ---


def test_the_return_value_of_a_function_is_the_result() -> None:
    assert run(lambda: {"sum": 3, "name": "ü"}).outcome == Success('{"sum": 3, "name": "ü"}')


def test_a_coroutine_is_run_to_its_end() -> None:
    async def task() -> int:
        await asyncio.sleep(0.01)
        return 3

    assert run(task).outcome == Success("3")


def test_an_exception_is_a_failure_with_its_name_and_where_it_came_from() -> None:
    def task() -> None:
        raise LookupError("no such order")

    outcome = failure_of(task)
    assert (outcome.kind, outcome.message, outcome.exception, outcome.retry) == (
        FailureKind.FAILED,
        "no such order",
        "LookupError",
        True,
    )
    assert outcome.traceback is not None
    assert outcome.traceback.startswith("Traceback (most recent call last):\n")
    assert 'raise LookupError("no such order")' in outcome.traceback


@pytest.mark.parametrize(
    ("error", "retry", "after_s"),
    [(Discard("hopeless"), False, None), (Retry("later", after=90), True, 90.0), (Retry("soon"), True, None)],
)
def test_a_task_decides_by_its_exception_whether_and_when_it_is_retried(
    error: Exception, retry: bool, after_s: float | None
) -> None:
    def task() -> None:
        raise error

    outcome = failure_of(task)
    assert (outcome.retry, outcome.retry_after_s, outcome.message) == (retry, after_s, str(error))


@pytest.mark.parametrize("error", [SystemExit(0), SystemExit("bye"), KeyboardInterrupt(), MemoryError()])
def test_any_exception_is_a_failure_and_does_not_end_the_worker(error: BaseException) -> None:
    def task() -> None:
        raise error

    outcome = failure_of(task)
    assert (outcome.kind, outcome.exception) == (FailureKind.FAILED, type(error).__name__)


def test_a_report_shows_whether_the_end_was_announced() -> None:
    assert run(lambda: 1, announces=True).announced
    assert not run(lambda: 1).announced


@pytest.mark.parametrize("status", [0, 3])
def test_a_task_that_ends_its_process_has_failed(status: int) -> None:
    outcome = failure_of(lambda: os._exit(status))
    assert (outcome.kind, outcome.message) == (
        FailureKind.FAILED,
        f"the task ended its process: exit status {status}",
    )


@pytest.mark.parametrize(
    ("crash", "how"),
    [
        (lambda: ctypes.string_at(0), "killed by signal 11 (SIGSEGV)"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by signal 9 (SIGKILL)"),
        (os.abort, "killed by signal 6 (SIGABRT)"),
    ],
    ids=["segfault", "killed", "abort"],
)
def test_a_crash_is_the_failure_of_its_attempt(crash: Callable[[], Any], how: str) -> None:
    report = run(crash)
    assert report.outcome == Failure(FailureKind.KILLED, how)
    assert report.usage is not None
    assert report.usage.exit == how


# --- results that cannot be kept ---


def test_the_largest_result_arrives_whole() -> None:
    outcome = run(lambda: '"' * (MAX_RESULT_BYTES // 2 - 2) + "xx").outcome
    assert isinstance(outcome, Success)
    assert len(outcome.result) == MAX_RESULT_BYTES


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ("x" * MAX_RESULT_BYTES, "is 1,048,578 bytes of JSON, the limit is 1,048,576"),
        (float("nan"), "is not JSON: Out of range float values are not JSON compliant"),
        ({1, 2}, "is not JSON: Object of type set is not JSON serializable"),
        ({"a": "\0"}, "cannot be kept: a: U+0000 cannot be stored in PostgreSQL"),
        (["\ud800"], "holds a lone surrogate"),
        (10**500, "cannot be kept: $: the number has more than 400 digits"),
    ],
    ids=["large", "nan", "set", "nul", "surrogate", "digits"],
)
def test_a_result_that_cannot_be_stored_is_a_failure_that_gives_the_reason(result: object, why: str) -> None:
    outcome = failure_of(lambda: result)
    assert outcome.kind is FailureKind.UNUSABLE_OUTPUT
    assert not outcome.retry
    assert outcome.message.startswith(f"the result of the task {why}")


def test_a_result_that_contains_itself_is_a_failure() -> None:
    def task() -> list[Any]:
        loop: list[Any] = []
        loop.append(loop)
        return loop

    assert failure_of(task).kind is FailureKind.UNUSABLE_OUTPUT


def test_the_message_of_a_failure_can_be_stored() -> None:
    def task() -> None:
        raise ValueError("a\0b\ud800c" * 10_000)

    outcome = failure_of(task)
    assert outcome.message[:6] == "a\N{REPLACEMENT CHARACTER}b?ca"
    assert len(outcome.message) == 1_000
    assert outcome.traceback is not None
    assert len(outcome.traceback) <= 32_768
    outcome.traceback.encode()
    assert "\0" not in outcome.traceback


# --- how it is stopped ---


def test_a_task_past_its_deadline_gets_an_exception(tmp_path: Path) -> None:
    ready, told = tmp_path / "ready", tmp_path / "told"

    def task() -> None:
        try:
            stay(ready)
        except TaskTimeout:
            told.touch()
            raise

    outcome = failure_of(task, FakeWatch(Stop.DEADLINE, ready.exists))
    assert (outcome.kind, outcome.message) == (FailureKind.TIMEOUT, Stop.DEADLINE.value)
    assert outcome.exception == "reproq_prefork.TaskTimeout"
    assert told.exists()


def test_except_exception_does_not_swallow_the_deadline(tmp_path: Path) -> None:
    ready = tmp_path / "ready"

    def task() -> str:
        while True:
            try:
                stay(ready)
            except Exception:
                return "swallowed"

    assert failure_of(task, FakeWatch(Stop.DEADLINE, ready.exists)).kind is FailureKind.TIMEOUT


def test_a_task_that_catches_the_deadline_and_returns_has_succeeded(tmp_path: Path) -> None:
    ready = tmp_path / "ready"

    def task() -> str:
        with contextlib.suppress(TaskTimeout):
            stay(ready)
        return "half of it"

    assert run(task, FakeWatch(Stop.DEADLINE, ready.exists)).outcome == Success('"half of it"')


def test_an_exception_raised_after_the_deadline_is_a_timeout_too(tmp_path: Path) -> None:
    ready = tmp_path / "ready"

    def task() -> None:
        try:
            stay(ready)
        except TaskTimeout:
            raise Retry("the rest later", after=60) from None

    outcome = failure_of(task, FakeWatch(Stop.DEADLINE, ready.exists))
    assert (outcome.kind, outcome.retry_after_s) == (FailureKind.TIMEOUT, 60.0)


def test_a_coroutine_past_its_deadline_is_cancelled(tmp_path: Path) -> None:
    ready, told = tmp_path / "ready", tmp_path / "told"

    async def task() -> None:
        ready.touch()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told.touch()
            raise

    outcome = failure_of(task, FakeWatch(Stop.DEADLINE, ready.exists))
    assert (outcome.kind, outcome.exception) == (
        FailureKind.TIMEOUT,
        "reproq_prefork.TaskTimeout",
    )
    assert told.exists()


@pytest.mark.parametrize(
    ("stop", "expected"),
    [
        (Stop.DEADLINE, Failure(FailureKind.TIMEOUT, Stop.DEADLINE.value)),
        (Stop.CANCEL, Cancelled(Stop.CANCEL.value)),
    ],
)
def test_a_task_that_ignores_its_exception_is_killed_after_a_grace(
    stop: Stop, expected: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_io, "TERM_GRACE_S", 0.2)
    monkeypatch.setattr(process_io, "CANCEL_GRACE_S", 0.2)
    ready = tmp_path / "ready"

    def task() -> None:
        while True:
            with contextlib.suppress(BaseException):
                stay(ready)

    report = run(task, FakeWatch(stop, ready.exists))
    assert report.outcome == expected
    assert report.usage is not None
    assert report.usage.exit == "killed by signal 9 (SIGKILL)"


def test_a_cancelled_task_gets_an_exception_and_is_cancelled(tmp_path: Path) -> None:
    ready, told = tmp_path / "ready", tmp_path / "told"

    def task() -> None:
        try:
            stay(ready)
        except TaskCancelled:
            told.touch()
            raise

    assert run(task, FakeWatch(Stop.CANCEL, ready.exists)).outcome == Cancelled(Stop.CANCEL.value)
    assert told.exists()


@pytest.mark.parametrize(
    ("stop", "expected"),
    [(Stop.QUIT, Interrupted(Stop.QUIT.value)), (Stop.LEASE, Abandoned(Stop.LEASE.value))],
)
def test_an_order_to_quit_or_a_lost_lease_ends_a_task_at_once(
    stop: Stop, expected: Outcome, tmp_path: Path
) -> None:
    ready, told = tmp_path / "ready", tmp_path / "told"

    def task() -> None:
        try:
            stay(ready)
        finally:
            told.touch()

    assert run(task, FakeWatch(stop, ready.exists)).outcome == expected
    assert not told.exists()


# --- what it prints ---


def test_output_of_a_task_is_kept_whether_it_succeeds_or_fails() -> None:
    def task(error: Exception | None = None) -> None:
        print("from Python")
        sys.stderr.write("an error line\n")
        subprocess.run(["sh", "-c", "echo from a program"], check=True)
        if error is not None:
            raise error

    everything = "from Python\nan error line\nfrom a program"
    assert output_of(task) == everything
    assert output_of(lambda: task(ValueError())) == everything
    assert output_of(lambda: None) is None


def test_output_before_a_crash_is_kept() -> None:
    def task() -> None:
        print("the last words")
        ctypes.string_at(0)

    assert output_of(task) == "the last words"


def test_the_end_of_a_long_output_is_kept_as_text() -> None:
    def task() -> None:
        os.write(1, b"\xff\0")
        for _ in range(100):
            print("é" * 5_001)

    output = output_of(task)
    assert output is not None
    assert output.endswith("é" * 5_001)
    assert set(output) == {"é", "\n"}
    assert len(output.encode()) <= MAX_OUTPUT_BYTES


def test_a_task_does_not_write_the_unflushed_output_of_its_worker() -> None:
    def program(_inbox: SignalInbox) -> AttemptReport:
        sys.stdout = open(1, "w", buffering=10_000, closefd=False)  # noqa: SIM115
        sys.stdout.write("the worker's own")
        return ForkExecutor(FunctionRuntime(lambda: print("the task's"))).run(a_run(), FakeWatch())

    usage = in_a_worker(program).usage
    assert usage is not None
    assert usage.output == "the task's"


# --- what it used ---


def test_cpu_time_and_memory_are_those_of_the_attempt() -> None:
    def task() -> None:
        block = b"x" * 64_000_000
        while time.process_time() < 0.2:
            len(block)

    usage = run(task).usage
    assert usage is not None
    assert usage.exit == "exit status 0"
    assert 0.2 <= usage.cpu_s < 5
    assert usage.peak_rss_kib > 62_000


# --- what is left behind, and what is found ---


def test_children_and_daemons_of_a_task_end_with_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def task() -> None:
        subprocess.Popen(["sleep", "60"])
        script = f"echo $$ >> {pids}; exec sleep 60"
        subprocess.Popen(["sh", "-c", script], start_new_session=True)
        threading.Thread(target=time.sleep, args=(60,)).start()
        while not pids.exists() or not pids.read_text():
            time.sleep(0.01)

    assert run(task).outcome == Success("null")
    (daemon,) = map(int, pids.read_text().split())
    assert proc.identity_of(daemon) is None


def test_a_descendant_that_holds_the_pipes_does_not_delay_the_end() -> None:
    def task() -> int:
        if os.fork() == 0:
            time.sleep(60)
        return 1

    began = time.monotonic()
    assert run(task).outcome == Success("1")
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("error", [None, ValueError("of the child")])
def test_a_child_that_leaves_the_tasks_code_does_not_report_for_the_task(error: Exception | None) -> None:
    def task() -> int:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        elif error is not None:
            raise error
        return 1 if child else 2

    assert run(task).outcome == Success("1")


def test_a_task_has_no_inherited_socket_or_pipe_and_their_descriptor_numbers_stay_in_use() -> None:
    def program(_inbox: SignalInbox) -> tuple[AttemptReport, list[int]]:
        ours, theirs = socket.socketpair()
        listening = socket.create_server(("127.0.0.1", 0))
        with ours, theirs, listening:
            report = ForkExecutor(FunctionRuntime(links_of_fds)).run(a_run(), FakeWatch())
            return report, [ours.fileno(), theirs.fileno(), listening.fileno()]

    report, inherited = in_a_worker(program)
    assert isinstance(report.outcome, Success)
    found: dict[str, str] = json.loads(report.outcome.result)
    assert [found[str(fd)] for fd in inherited] == ["/dev/null"] * 3
    assert not any(link.startswith("socket:") for link in found.values())
    assert found["0"] == "/dev/null"
    pipes = [int(fd) for fd, link in found.items() if link.startswith("pipe:")]
    assert pipes[:2] == [1, 2]
    assert len(pipes) == 3, "the result has a pipe of its own"


def test_a_log_file_of_the_application_stays_open_in_its_tasks(tmp_path: Path) -> None:
    log_path = tmp_path / "app.log"

    def program(_inbox: SignalInbox) -> None:
        before = proc.open_files()
        with log_path.open("a") as log:
            files = {fd: file for fd, file in proc.open_files().items() if before.get(fd) != file}
            executor = ForkExecutor(
                FunctionRuntime(lambda: print("a line", file=log, flush=True)), keep_files=files
            )
            executor.run(a_run(), FakeWatch())
        # The number is somebody else's by now.
        with socket.socket() as other:
            assert other.fileno() in files
            task = FunctionRuntime(lambda: str(Path(f"/proc/self/fd/{other.fileno()}").readlink()))
            report = ForkExecutor(task, keep_files=files).run(a_run(), FakeWatch())
            assert report.outcome == Success('"/dev/null"')

    in_a_worker(program)
    assert log_path.read_text() == "a line\n"


def test_a_task_has_the_signal_handlers_of_a_new_interpreter() -> None:
    def task() -> list[Any]:
        expected = {signal.SIGPIPE: signal.SIG_IGN, signal.SIGXFSZ: signal.SIG_IGN}
        expected[signal.SIGINT] = signal.default_int_handler  # type: ignore[assignment]
        own = {signal.SIGTERM, signal.SIGUSR1}  # by which it is told to end
        settable = signal.valid_signals() - own - set(range(signal.SIGSYS + 1, signal.SIGRTMIN))
        wrong = [
            signum for signum in settable if signal.getsignal(signum) != expected.get(signum, signal.SIG_DFL)
        ]
        return [wrong, list(signal.pthread_sigmask(signal.SIG_BLOCK, ())), signal.set_wakeup_fd(-1)]

    assert run(task).outcome == Success("[[], [], -1]")


def test_a_task_leads_its_own_session_and_is_named_after_its_run() -> None:
    def task() -> list[Any]:
        title = Path("/proc/self/cmdline").read_bytes().split(b"\0")[0].decode()
        return [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid(), title.strip()]

    assert run(task).outcome == Success('[true, true, "reproq-prefork: task 7"]')


def test_a_task_whose_worker_is_killed_dies(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def task() -> None:
        pid_file.with_suffix(".new").write_text(f"{os.getpid()} {os.getppid()}")
        pid_file.with_suffix(".new").rename(pid_file)
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)

    with pytest.raises(AssertionError):
        run(task)
    child = int(pid_file.read_text().split()[0])
    wait_until(lambda: proc.identity_of(child) is None, 10, "the task to die")


# --- when it cannot be forked ---


def test_a_worker_with_threads_forks_and_warns_once_of_each() -> None:
    def program(_inbox: SignalInbox) -> None:
        warnings: list[str] = []
        executor = ForkExecutor(FunctionRuntime(), warn=warnings.append, warned_of=["known"])
        go_on = threading.Event()
        threads = [threading.Thread(target=go_on.wait, name=name) for name in ("known", "poll", "late")]
        for thread, warned in zip(threads, (0, 1, 2), strict=True):
            thread.start()
            for _ in range(2):
                assert isinstance(executor.run(a_run(), FakeWatch()).outcome, Success)
            assert len(warnings) == warned
        assert "beside threads (poll)" in warnings[0]
        assert "beside threads (late)" in warnings[1]
        go_on.set()
        for thread in threads:
            thread.join()

    in_a_worker(program)


def test_without_free_descriptors_a_task_is_not_started_but_may_start_later() -> None:
    def program(_inbox: SignalInbox) -> None:
        executor = ForkExecutor(FunctionRuntime())
        before = set(proc.open_files())
        used = max(proc.open_files())
        for fd in range(3, used):
            if fd not in proc.open_files():
                os.dup2(used, fd)
        started = []
        for spare in range(8):
            resource.setrlimit(resource.RLIMIT_NOFILE, (used + 1 + spare, 1_024))
            try:
                started.append(executor.run(a_run(), FakeWatch()).outcome == Success("null"))
            except NoProcess:
                started.append(False)
            resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, 1_024))
            assert max(proc.open_files()) == used
        assert started == [False] * 5 + [True] * 3
        for fd in set(proc.open_files()) - before:
            os.close(fd)

    in_a_worker(program)


# --- announcements ---


def announced_by_a_fork(announce: Callable[[int], None], watch: FakeWatch | None = None) -> str | None:
    def program(_inbox: SignalInbox) -> str | None:
        executor = ForkExecutor(FunctionRuntime(announces=True, announce=announce))
        assert executor.announces
        return executor.announce(7, watch or FakeWatch())

    return in_a_worker(program)


def note(path: Path, run_id: int) -> None:
    path.write_text(str(run_id))


def test_an_announcement_is_made_in_its_own_process(tmp_path: Path) -> None:
    told = tmp_path / "told"
    assert announced_by_a_fork(lambda run_id: note(told, run_id)) is None
    assert told.read_text() == "7"


def test_an_announcement_that_fails_crashes_or_hangs_does_no_harm(tmp_path: Path) -> None:
    ready = tmp_path / "ready"

    def fail(_run_id: int) -> None:
        raise LookupError("no receiver")

    assert announced_by_a_fork(fail) == "exit status 70: LookupError: no receiver"
    assert announced_by_a_fork(lambda _id: os.abort()) == "killed by signal 6 (SIGABRT): "
    hung = announced_by_a_fork(lambda _id: stay(ready), FakeWatch(Stop.DEADLINE, ready.exists))
    assert hung == "killed by signal 15 (SIGTERM): "


def test_a_task_that_wants_more_memory_than_it_may_have_fails_alone() -> None:
    def want_too_much() -> int:
        return len(bytearray(4 << 30))

    def program(_inbox: SignalInbox) -> list[AttemptReport]:
        executor = ForkExecutor(FunctionRuntime(want_too_much), memory_bytes=1 << 30)
        return [executor.run(a_run(), FakeWatch()) for _ in range(2)]

    for report in in_a_worker(program):
        assert isinstance(report.outcome, Failure)
        assert report.outcome.exception == "MemoryError"
