"""Ending processes: one, a group, or a whole tree of them."""

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
    """Take the status of a child, if it has ended."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def kill_own_descendants(
    *, spare: Collection[int] = (), within_s: float, reap: Callable[[int], None] = reap
) -> bool:
    """SIGKILL all children of this process but `spare`, with all their descendants, and `reap` them.

    Needs `adopt_orphans`: whoever loses its parent meanwhile becomes a child of this process, and is found in
    the next round, until none is left. False: some are still there after `within_s` (the kernel keeps them).
    """
    gives_up_at = time.monotonic() + within_s
    while has_children():
        with contextlib.suppress(OSError):  # nothing can be seen at this moment
            children = [child for child in children_of(os.getpid()) if child not in spare]
            if not children:
                return True
            # Stopped first, so that none of them forks while the tree is walked.
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
    """SIGKILL a process that is not ours with all its descendants, these first. False: it is still there.

    The pid is used through a pidfd whose start time was checked, so a reused pid is never hit.
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
            # It may have forked until it was seen stopped, and adopts what loses its parent.
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
    """Signal a process that is not our child, and no other that has its pid by now. False: it is gone."""
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
    """Signal a process of ours. One that is gone needs none, and one that runs as another user takes none."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signum)


def send_signal_to_group(leader: int, signum: int) -> None:
    """Signal a process that leads its group, and the rest of the group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signum)
