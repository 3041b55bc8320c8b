"""Programs that a measurement starts, each with all that it starts itself in a session of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

STOP_TIMEOUT_S = 30.0
LOG_TAIL_CHARACTERS = 1500


class ChildFailed(RuntimeError):
    """A program ended with another status than 0, or before it was told to."""

    def __init__(self, command: Sequence[str], status: int, log: str) -> None:
        super().__init__(
            f"{' '.join(command[:4])} ended with status {status}: {log.strip()[-LOG_TAIL_CHARACTERS:]}"
        )


@contextmanager
def running(
    command: Sequence[str], *, count: int = 1, cwd: Path, environ: Mapping[str, str], log: Path
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """`count` copies of `command`, told to stop by SIGTERM at the end, and made to."""
    with ExitStack() as stack, log.open("wb") as log_file:
        children: list[subprocess.Popen[bytes]] = []
        stack.callback(_stop, children)
        for _ in range(count):
            # One by one: those that were started are to be stopped when one cannot be.
            children.append(  # noqa: PERF401
                subprocess.Popen(
                    command,
                    cwd=cwd,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=log_file,
                    stderr=log_file,
                    start_new_session=True,
                )
            )
        yield children
        for child in children:
            if child.poll() is not None:
                raise ChildFailed(command, child.returncode, log.read_text(errors="replace"))


def output_of(
    command: Sequence[str], *, cwd: Path, environ: Mapping[str, str], timeout_s: float = 600.0
) -> str:
    """What `command` writes. Raises ChildFailed with what it says."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode != 0:
        raise ChildFailed(command, done.returncode, done.stderr or done.stdout)
    return done.stdout


def _stop(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        child.terminate()
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_TIMEOUT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # what it has started and not stopped, too
        child.wait()
