"""Real programs, a watch that a test controls, and no database."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reproq_prefork.executors import command, process_io
from reproq_prefork.executors.command import CommandExecutor
from reproq_prefork.executors.contract import NoProcess, NoProgram, Stop, TaskWillNotDie
from reproq_prefork.model.limits import MAX_ARGV_PAYLOAD_BYTES, MAX_RESULT_BYTES, MAX_STDERR_TAIL_BYTES
from reproq_prefork.model.outcome import (
    Abandoned,
    Cancelled,
    Failure,
    FailureKind,
    Interrupted,
    Outcome,
    Success,
    Usage,
)
from reproq_prefork.model.run import ClaimedRun
from reproq_prefork.settings import PayloadMode
from reproq_prefork.unix import kill, proc
from reproq_prefork.unix.signals import SignalInbox
from tests.support.fakes.runs import a_run
from tests.support.fakes.watch import LONGEST_S, FakeWatch
from tests.support.unix.children import exit_status_of, forked
from tests.support.waiting import wait_until

SHELL_SLEEP = "sleep 60"


def an_executor(
    argv: Sequence[str],
    *,
    mode: PayloadMode = PayloadMode.ARGV,
    environ: dict[str, str] | None = None,
    directory: str = "/",
) -> CommandExecutor:
    return CommandExecutor(
        argv,
        environ={"PATH": os.environ["PATH"]} if environ is None else environ,
        payload_mode=mode,
        directory=directory,
    )


def shell(script: str) -> list[str]:
    """$1 is `--payload`, $2 the payload."""
    return ["sh", "-c", script, "task"]


def python(script: str) -> list[str]:
    return [sys.executable, "-S", "-c", script]


def outcome_of(
    argv: Sequence[str], *, watch: FakeWatch | None = None, run: ClaimedRun | None = None, **options: object
) -> Outcome:
    executor = an_executor(argv, **options)  # type: ignore[arg-type]
    return executor.run(run or a_run(), watch or FakeWatch()).outcome


def failure_of(argv: Sequence[str], *, watch: FakeWatch | None = None, **options: object) -> Failure:
    outcome = outcome_of(argv, watch=watch, **options)  # type: ignore[arg-type]
    assert isinstance(outcome, Failure)
    return outcome


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """No process and no descriptor, whatever a task did."""
    proc.adopt_orphans()
    gc.collect()  # what earlier tests have left open is not closed in the middle of this one
    fds = len(os.listdir("/proc/self/fd"))
    yield
    try:
        assert proc.children_of(os.getpid()) == []
    finally:
        kill.kill_own_descendants(within_s=5)
    assert len(os.listdir("/proc/self/fd")) == fds


# --- how it ends ---


def test_a_program_that_prints_json_succeeds() -> None:
    assert outcome_of(shell('echo "{\\"sum\\": 3}"')) == Success('{"sum": 3}')


def test_the_payload_is_an_argument() -> None:
    assert outcome_of(shell('test "$1" = --payload && echo "$2"'), run=a_run('{"a": "ü"}')) == Success(
        '{"a": "ü"}'
    )


def test_a_nonzero_exit_status_is_a_failure_with_the_text_from_stderr() -> None:
    outcome = failure_of(shell("echo half; echo went wrong >&2; exit 3"))
    assert (outcome.kind, outcome.message, outcome.stderr) == (
        FailureKind.FAILED,
        "went wrong",
        "went wrong",
    )


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV", "INT", "PIPE"])
def test_a_signal_that_ends_the_program_is_named(name: str) -> None:
    outcome = failure_of(shell(f"kill -{name} $$"))
    assert outcome.kind is FailureKind.KILLED
    assert outcome.message == f"killed by signal {signal.Signals[f'SIG{name}'].value}"


def test_output_that_is_not_json_is_a_failure() -> None:
    assert failure_of(shell("echo done")).kind is FailureKind.UNUSABLE_OUTPUT


def test_a_program_that_prints_nothing_has_the_result_null() -> None:
    assert outcome_of(shell("echo done >&2")) == Success("null")


def test_text_written_to_the_result_descriptor_is_the_result() -> None:
    script = "import os; print('a log line'); os.write(int(os.environ['REPROQ_RESULT_FD']), b'[1, 2]')"
    assert outcome_of(python(script)) == Success("[1, 2]")


# --- how it is stopped ---


def test_a_task_that_obeys_term_at_its_deadline_may_say_why(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'echo was at row 7 >&2; exit 1' TERM; : > {ready}; while :; do sleep 0.01; done"
    outcome = failure_of(shell(script), watch=FakeWatch(Stop.DEADLINE, ready.exists))
    assert outcome.kind is FailureKind.TIMEOUT
    assert outcome.stderr is not None
    assert outcome.stderr.endswith("was at row 7")


def test_a_task_that_ignores_term_is_killed_after_a_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_io, "TERM_GRACE_S", 0.3)
    ready = tmp_path / "ready"
    watch = FakeWatch(Stop.DEADLINE, ready.exists)
    began = time.monotonic()
    outcome = failure_of(shell(f"trap '' TERM; : > {ready}; while :; do sleep 0.05; done"), watch=watch)
    assert outcome.kind is FailureKind.TIMEOUT
    assert time.monotonic() - began >= 0.3


def test_a_task_that_succeeds_after_its_deadline_has_timed_out(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap 'echo 42; exit 0' TERM; : > {ready}; while :; do sleep 0.01; done"
    outcome = failure_of(shell(script), watch=FakeWatch(Stop.DEADLINE, ready.exists))
    assert outcome.kind is FailureKind.TIMEOUT


@pytest.mark.parametrize(
    ("stop", "kind"), [(Stop.QUIT, Interrupted), (Stop.LEASE, Abandoned)], ids=["quit", "lease"]
)
def test_an_order_to_quit_or_a_lost_lease_ends_a_task_at_once(
    stop: Stop, kind: type[Outcome], tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    script = f"trap '' TERM INT QUIT HUP; : > {ready}; while :; do sleep 0.05; done"
    outcome = outcome_of(shell(script), watch=FakeWatch(stop, ready.exists))
    assert isinstance(outcome, kind)
    assert getattr(outcome, "reason", None) == stop.value


def test_a_cancelled_task_gets_sigterm_and_is_cancelled_whatever_it_prints(tmp_path: Path) -> None:
    ready, told = tmp_path / "ready", tmp_path / "told"
    script = f"trap 'touch {told}; echo 42; exit 0' TERM; : > {ready}; while :; do sleep 0.01; done"
    outcome = outcome_of(shell(script), watch=FakeWatch(Stop.CANCEL, ready.exists))
    assert outcome == Cancelled(Stop.CANCEL.value)
    assert told.exists()


def test_a_cancelled_task_that_ignores_term_is_killed_after_its_own_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_io, "TERM_GRACE_S", 60)
    monkeypatch.setattr(process_io, "CANCEL_GRACE_S", 0.3)
    ready = tmp_path / "ready"
    began = time.monotonic()
    script = f"trap '' TERM; : > {ready}; while :; do sleep 0.05; done"
    outcome = outcome_of(shell(script), watch=FakeWatch(Stop.CANCEL, ready.exists))
    assert outcome == Cancelled(Stop.CANCEL.value)
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("script", [SHELL_SLEEP, "while :; do echo a line; sleep 0.01; done"])
def test_the_watch_looks_as_soon_as_its_descriptor_is_readable_whatever_the_task_writes(script: str) -> None:
    reader, writer = os.pipe()
    watch = FakeWatch(Stop.QUIT, look_s=600)
    watch.fds = (reader,)
    os.write(writer, b"x")
    assert isinstance(outcome_of(shell(script), watch=watch), Interrupted)
    os.close(reader)
    os.close(writer)


def test_a_lease_that_ends_after_the_deadline_gives_no_more_grace(tmp_path: Path) -> None:
    ready = tmp_path / "ready"

    class LateLease(FakeWatch):
        def look(self) -> Stop | None:
            super().look()
            if not ready.exists():
                return None
            self.told = getattr(self, "told", 0) + 1
            return Stop.DEADLINE if self.told < 3 else Stop.LEASE

    script = f"trap '' TERM; : > {ready}; while :; do sleep 0.05; done"
    assert isinstance(outcome_of(shell(script), watch=LateLease()), Abandoned)


# --- what it used ---


def usage_of(argv: list[str], watch: FakeWatch | None = None) -> Usage:
    usage = an_executor(argv).run(a_run(), watch or FakeWatch()).usage
    assert usage is not None
    return usage


def test_the_cpu_time_and_memory_of_a_program_are_known() -> None:
    script = "import time\nx = b'x' * 64_000_000\nwhile time.process_time() < 0.3: pass\nprint(1)"
    usage = usage_of(python(script))
    assert usage.exit == "exit status 0"
    assert 0.3 <= usage.cpu_s < 5
    assert usage.peak_rss_kib > 62_000
    assert usage.output is None, "what a program writes is in its outcome"


def test_a_program_that_is_killed_leaves_its_usage_too(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"import time\nwhile time.process_time() < 0.1: pass\nopen({str(ready)!r}, 'w')\ntime.sleep(60)"
    usage = usage_of(python(script), FakeWatch(Stop.QUIT, ready.exists))
    assert usage.exit == "killed by signal 9 (SIGKILL)"
    assert usage.cpu_s >= 0.1


# --- what is left behind ---


def test_children_that_hold_the_pipes_open_do_not_delay_the_end() -> None:
    began = time.monotonic()
    assert outcome_of(shell(f"({SHELL_SLEEP}) & echo 1")) == Success("1")
    assert outcome_of(shell(f"setsid sh -c '{SHELL_SLEEP}' & echo 2")) == Success("2")
    assert time.monotonic() - began < LONGEST_S


def test_the_output_of_children_is_read_until_the_program_ends() -> None:
    script = """
import os, sys
if os.fork() == 0:
    os.write(1, b'[1]\\n')
    os.close(0)
    import time
    time.sleep(60)
os.read(0, 1)
import time
time.sleep(0.05)
"""
    assert outcome_of(python(script)) == Success("[1]")


def test_a_task_killed_in_the_middle_leaves_none_of_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"""
import os, signal, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork():
            os._exit(0)
        with open({str(pids)!r}, "a") as file:
            file.write(f"{{os.getpid()}}\\n")
        time.sleep(60)
time.sleep(60)
"""

    def three_are_there() -> bool:
        return pids.exists() and len(pids.read_text().splitlines()) == 3

    assert isinstance(outcome_of(python(script), watch=FakeWatch(Stop.QUIT, three_are_there)), Interrupted)
    assert [pid for pid in map(int, pids.read_text().split()) if proc.identity_of(pid)] == []


def test_a_process_that_survives_sigkill_is_an_error_and_not_an_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kill, "kill_own_descendants", lambda **_limits: False)
    with pytest.raises(TaskWillNotDie, match="still there after SIGKILL"):
        outcome_of(shell("echo 1"))
    monkeypatch.undo()


# --- the payload ---


def test_in_stdin_mode_no_payload_is_in_the_command_line() -> None:
    script = """
import json, os, sys
with open("/proc/self/cmdline", "rb") as file:
    cmdline = file.read().split(b"\\0")
print(json.dumps([cmdline[-3:-1] == [b"--payload", b"-"], json.load(sys.stdin)["secret"]]))
"""
    outcome = outcome_of(python(script), run=a_run('{"secret": "xyzzy"}'), mode=PayloadMode.STDIN)
    assert outcome == Success('[true, "xyzzy"]')


def json_of(size: int) -> str:
    return '"' + "x" * (size - 2) + '"'


@pytest.mark.parametrize(
    ("size", "as_argument"),
    [(MAX_ARGV_PAYLOAD_BYTES, True), (MAX_ARGV_PAYLOAD_BYTES + 1, False), (1024 * 1024, False)],
)
def test_a_payload_too_large_for_an_argument_comes_on_stdin(size: int, as_argument: bool) -> None:
    script = """
import sys
given = sys.argv[-1]
text = sys.stdin.read()
print(f"[{len(given)}, {len(text)}]")
"""
    expected = f"[{size}, 0]" if as_argument else f"[1, {size}]"
    assert outcome_of(python(script), run=a_run(json_of(size))) == Success(expected)


def test_a_size_is_counted_in_bytes() -> None:
    payload = '"' + "é" * (MAX_ARGV_PAYLOAD_BYTES // 2) + '"'
    assert outcome_of(shell('test "$2" = - && echo 1'), run=a_run(payload)) == Success("1")


@pytest.mark.parametrize("script", ["echo 1", "exec <&-; echo 1", "head -c 10 >/dev/null; echo 1"])
def test_a_program_need_not_read_its_payload(script: str) -> None:
    assert outcome_of(shell(script), run=a_run(json_of(1024 * 1024))) == Success("1")


def test_a_program_that_writes_before_it_reads_does_not_deadlock() -> None:
    script = "import sys; sys.stdout.write('x' * 500_000 + '\\n'); print(len(sys.stdin.read()))"
    assert outcome_of(python(script), run=a_run(json_of(1024 * 1024))) == Success(str(1024 * 1024))


# --- the environment ---


ENVIRONMENT = python("import json, os; print(json.dumps(dict(os.environ)))")


def environment_of(watch: FakeWatch | None = None, **environ: str) -> dict[str, str]:
    outcome = outcome_of(ENVIRONMENT, watch=watch, environ=environ)
    assert isinstance(outcome, Success)
    seen: dict[str, str] = json.loads(outcome.result)
    seen.pop("LC_CTYPE", None)  # Python's own
    return seen


def test_a_task_knows_which_run_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = environment_of(FakeWatch(deadline_unix_s=1_795_555_876.4))
    assert seen.pop("REPROQ_RESULT_FD").isdigit()
    assert seen == {
        "REPROQ_TASK_ID": "7",
        "REPROQ_SPEC_HASH": "ab" * 32,
        "REPROQ_ATTEMPT": "2",
        "REPROQ_CLAIM": "11",
        "REPROQ_DEADLINE": "1795555876",
    }


def test_a_task_gets_only_the_chosen_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:secret@h/db")
    seen = environment_of(PATH="/bin", NAME="välue")
    assert {name for name in seen if not name.startswith("REPROQ_")} == {"PATH", "NAME"}
    assert seen["NAME"] == "välue"


def test_a_task_without_a_deadline_inherits_none() -> None:
    assert "REPROQ_DEADLINE" not in environment_of(REPROQ_DEADLINE="1")


def test_a_task_runs_in_the_chosen_directory(tmp_path: Path) -> None:
    outcome = outcome_of(shell('printf \'"%s"\' "$PWD"'), directory=str(tmp_path))
    assert outcome == Success(json.dumps(str(tmp_path)))


# --- output without end ---


def test_memory_is_bounded_whatever_a_program_prints(tmp_path: Path) -> None:
    megabytes = 300

    def worker() -> int:
        SignalInbox((signal.SIGCHLD,))
        proc.adopt_orphans()
        script = f"head -c {megabytes}M /dev/zero; head -c {megabytes}M /dev/zero >&2"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcome = failure_of(shell(script))
        grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert outcome.kind is FailureKind.UNUSABLE_OUTPUT
        assert f"{megabytes * 1024 * 1024:,} bytes" in outcome.message
        assert outcome.stderr is not None
        assert len(outcome.stderr) <= MAX_STDERR_TAIL_BYTES
        assert grown_kib < 32 * 1024, grown_kib
        return 0

    with forked(worker) as child:
        assert exit_status_of(child) == 0


def test_a_flood_of_output_does_not_stop_the_watch_from_looking() -> None:
    watch = FakeWatch(Stop.QUIT, lambda: time.monotonic() > ends_at, look_s=0.05)
    ends_at = time.monotonic() + 0.5
    assert isinstance(outcome_of(shell("cat /dev/zero"), watch=watch), Interrupted)
    pauses = [after - before for before, after in zip(watch.asked_at, watch.asked_at[1:], strict=False)]
    assert max(pauses) < 2.0
    assert len(pauses) > 5


def test_a_flood_faster_than_the_worker_reads_does_not_stop_the_watch_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = FakeWatch(Stop.QUIT, lambda: watch.looks > 20)
    reads_at_look: dict[int, int] = {}
    real_read = os.read

    def read_without_end(fd: int, size: int) -> bytes:
        if size != process_io.READ_BYTES:
            return real_read(fd, size)
        reads_at_look[watch.looks] = reads_at_look.get(watch.looks, 0) + 1
        assert reads_at_look[watch.looks] < 1_000, "the watch is not asked any more"
        return b"x" * size

    monkeypatch.setattr(os, "read", read_without_end)
    assert isinstance(outcome_of(shell(f"echo 1; {SHELL_SLEEP}"), watch=watch), Interrupted)
    assert len(reads_at_look) > 10


def test_the_watch_does_not_spin_during_a_quiet_task() -> None:
    watch = FakeWatch(look_s=0.1)
    assert outcome_of(shell("exec >&- 2>&- <&-; sleep 0.5"), watch=watch) == Success("null")
    assert watch.looks < 50


def test_the_largest_result_arrives_whole() -> None:
    script = f"print('log'); print('\"' + 'x' * {MAX_RESULT_BYTES - 2} + '\"')"
    outcome = outcome_of(python(script))
    assert isinstance(outcome, Success)
    assert len(outcome.result) == MAX_RESULT_BYTES


# --- what cannot be started ---


def no_program(argv: list[str], **how: Any) -> str:
    with pytest.raises(NoProgram) as caught:
        outcome_of(argv, **how)
    return str(caught.value)


def test_a_missing_program_is_not_a_failure_of_the_run() -> None:
    said = no_program(["/nowhere/program"])
    assert said == "/nowhere/program cannot be started: No such file or directory"


def test_a_file_without_permission_to_run_is_not_a_failure_of_the_run(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\necho 1\n")
    assert "Permission denied" in no_program([str(program)])


def test_a_file_that_is_not_a_program_is_not_a_failure_of_the_run(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x00\x01\x02\x03")
    program.chmod(0o755)
    assert "Exec format error" in no_program([str(program)])


def test_a_directory_that_is_not_there_is_named() -> None:
    said = no_program(shell("echo 1"), directory="/nowhere/at-all")
    assert said == "sh cannot be started in /nowhere/at-all: No such file or directory"


@pytest.mark.parametrize("module", ["reproq_nowhere", "nowhere.greet"])
def test_a_module_that_python_does_not_find_is_not_a_failure_of_the_run(module: str) -> None:
    said = no_program([sys.executable, "-m", module])
    assert module in said
    assert "\n" not in said


def test_a_module_that_misses_another_one_has_failed(tmp_path: Path) -> None:
    (tmp_path / "greet.py").write_text("import reproq_nowhere")
    outcome = failure_of([sys.executable, "-m", "greet"], directory=str(tmp_path))
    assert outcome.kind is FailureKind.FAILED


def test_arguments_that_are_too_long_are_a_failure_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "MAX_ARGV_PAYLOAD_BYTES", 10_000_000)
    outcome = failure_of(shell("echo 1"), run=a_run(json_of(1_000_000)))
    assert outcome.kind is FailureKind.NOT_STARTED


@pytest.mark.parametrize("spare", range(12))
def test_without_free_descriptors_a_task_is_not_started_but_may_start_later(spare: int) -> None:
    """However few are left, the task either runs to its end or raises `NoProcess`."""

    def worker() -> int:
        SignalInbox((signal.SIGCHLD,))
        proc.adopt_orphans()
        os.listdir("/proc/self/fd")
        used = max(map(int, os.listdir("/proc/self/fd")))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + spare, 1_024))
        outcome: Outcome | None = None
        with contextlib.suppress(NoProcess):
            outcome = outcome_of(shell("echo 1"), run=a_run(json_of(200_000)))
        resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, 1_024))
        assert outcome in (None, Success("1"))
        assert (outcome is None) or spare > 1
        assert (outcome is not None) or spare < 11
        assert proc.children_of(os.getpid()) == []
        assert max(map(int, os.listdir("/proc/self/fd"))) == used
        return 0

    with forked(worker) as child:
        assert exit_status_of(child) == 0


def test_at_the_process_limit_a_task_is_not_started_but_may_start_later() -> None:
    def worker() -> int:
        SignalInbox((signal.SIGCHLD,))
        if os.geteuid() == 0:
            os.setgid(65_534)
            os.setuid(65_534)  # the limit does not hold for root
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        with pytest.raises(NoProcess, match="no process can be started"):
            outcome_of(shell("echo 1"))
        return 0

    with forked(worker) as child:
        assert exit_status_of(child) == 0


# --- its worker ---


def test_a_task_whose_worker_is_killed_dies(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def worker() -> int:
        SignalInbox((signal.SIGCHLD,))
        proc.adopt_orphans()
        outcome_of(shell(f"echo $$ > {pid_file}.new; mv {pid_file}.new {pid_file}; {SHELL_SLEEP}"))
        return 0

    with forked(worker) as child:
        wait_until(pid_file.exists, 10, "the task to start")
        task = int(pid_file.read_text())
        child.kill()
        wait_until(lambda: proc.identity_of(task) is None, 10, "the task to die")
    wait_until(lambda: kill.kill_own_descendants(within_s=1), 10, "its orphans to be reaped")


@pytest.mark.parametrize("memory_mib", [256, 16])
def test_the_memory_limit_of_a_program_holds_even_if_its_worker_has_more_memory(memory_mib: int) -> None:
    executor = CommandExecutor(
        shell("ulimit -v"),
        environ={"PATH": os.environ["PATH"]},
        payload_mode=PayloadMode.ARGV,
        directory="/",
        memory_bytes=memory_mib << 20,
    )
    run = a_run(json_of(MAX_ARGV_PAYLOAD_BYTES))
    assert executor.run(run, FakeWatch()).outcome == Success(str(memory_mib << 10))
