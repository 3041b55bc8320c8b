"""Kills and signals processes: one, a group, or a whole tree."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Collection

from reproq_prefork.model.identity import ProcessIdentity
from reproq_prefork.unix.proc import (
    children_of,
    descendants_of,
    has_children,
    identity_of,
    is_alive,
    is_stopped,
)
from reproq_prefork.unix.signals import pause

KILL_POLL_S = 0.002


def reap(pid: int) -> None:
    """Reap a child, if it has ended."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def kill_own_descendants(
    *, spare: Collection[int] = (), within_s: float, reap: Callable[[int], None] = reap
) -> bool:
    """Send SIGKILL to all children of this process except `spare`, and to all their descendants, and `reap` them.

    Needs `adopt_orphans`: a process that loses its parent in the meantime becomes a child of this process and is
    found in the next round, until none is left. False: some still exist after `within_s` (the kernel keeps them).
    """
    gives_up_at = time.monotonic() + within_s
    while has_children():
        with contextlib.suppress(OSError):  # /proc cannot be read at this moment
            children = [child for child in children_of(os.getpid()) if child not in spare]
            if not children:
                return True
            # They are stopped first, so that none of them forks while we walk the tree.
            for pid in (*children, *descendants_of(children)):
                send_signal(pid, signal.SIGSTOP)
            for pid in (*children, *descendants_of(children)):
                send_signal(pid, signal.SIGKILL)
            for child in children:
                reap(child)
        if time.monotonic() > gives_up_at:
            return False
        pause(KILL_POLL_S)
    return True


def kill_tree(process: ProcessIdentity, *, within_s: float) -> bool:
    """Send SIGKILL to a process that is not our child, and first to all its descendants. False: it still exists.

    The signal is sent through a pidfd, after a check of the start time, so a process that reuses the pid is never
    hit.
    """
    gives_up_at = time.monotonic() + within_s
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return True
    try:
        while is_alive(process):
            signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
            stopped = is_stopped(process.pid)
            below = [pid for pid in descendants_of([process.pid]) if identity_of(pid) is not None]
            for pid in below:
                send_signal(pid, signal.SIGKILL)
            # Until it was seen stopped, it may have forked. It also adopts processes that lose their parent.
            if stopped and not below:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            if time.monotonic() > gives_up_at:
                return False
            pause(KILL_POLL_S)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    finally:
        os.close(pidfd)
    return True


def signal_process(process: ProcessIdentity, signum: int) -> bool:
    """Signal a process that is not our child, but never another process that reuses its pid. False: it is gone."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(pidfd, signum)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(pidfd)
    return True


def send_signal(pid: int, signum: int) -> None:
    """Signal one of our processes. If it is gone, or runs as another user, nothing happens."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def send_signal_to_group(leader: int, signum: int) -> None:
    """Signal a process that leads a group, and the rest of its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signum)
