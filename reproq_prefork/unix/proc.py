"""Processes in Linux: their identity, the death of a parent, their children.

Only `fork`, `reparented_fork`, `task_fork` and `spawn` fork. Processes that a task leaves behind are found by
walking the tree, not by their process group, because a group kill misses a process that called setsid.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from reproq_prefork.model.identity import HostIdentity, ProcessIdentity

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
_WALL = 0x4000_0000  # __WALL of wait(2): also children whose end sends no SIGCHLD
# The errors of reading /proc/PID if the process does not exist any more. Any other error (such as no free
# descriptor) says nothing about the process, and must not be taken for its death.
GONE = (FileNotFoundError, ProcessLookupError)
_LIBC = ctypes.CDLL(None, use_errno=True)


def flush_standard_streams() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()  # type: ignore[union-attr]


def thread_count() -> int:
    """The number of threads of this process, including threads that Python does not know."""
    # A listing would take five system calls. Each thread is a directory in this one, and so a link to it. Two more
    # links belong to the directory itself.
    return os.stat("/proc/self/task").st_nlink - 2  # noqa: PTH116 - a Path would be slower


def open_files() -> dict[int, tuple[int, int]]:
    """The descriptors above 2 that are open in this process, each with its file (device and inode)."""
    files: dict[int, tuple[int, int]] = {}
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
                stat = os.fstat(int(name))
                files[int(name)] = (stat.st_dev, stat.st_ino)
    return files


def close_other_fds(keep: Collection[int]) -> None:
    """Close every descriptor above 2 that is not in `keep`."""
    try:
        open_fds: Iterable[int] = map(int, os.listdir("/proc/self/fd"))
    except OSError:
        open_fds = range(os.sysconf("SC_OPEN_MAX"))  # no descriptor is free for the listing
    for fd in open_fds:
        if fd > 2 and fd not in keep:
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
                os.close(fd)


def die_with_parent(signum: int, parent: int) -> None:
    """Ask for `signum` when the parent dies. If the parent is already gone, exit."""
    _prctl(PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:
        os._exit(0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies: a subreaper, see prctl(2)."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"prctl({option})")


def identity_of(pid: int) -> ProcessIdentity | None:
    """Which process has this pid now. None: no process, or one that is dead and not yet reaped.

    Raises OSError if that cannot be found out, like all functions here that look at processes.
    """
    stat = _stat_fields(pid)
    if stat is None or stat[0] in ("Z", "X"):
        return None
    return ProcessIdentity(pid, int(stat[19]))


def is_stopped(pid: int) -> bool:
    stat = _stat_fields(pid)
    return stat is not None and stat[0] in ("T", "t")


def own_identity() -> ProcessIdentity:
    identity = identity_of(os.getpid())
    assert identity is not None
    return identity


def is_alive(process: ProcessIdentity) -> bool:
    """Whether it is alive, or may be: if /proc is mounted with hidepid, processes of other users are hidden."""
    identity = identity_of(process.pid)
    return identity == process or (identity is None and _is_hidden(process.pid))


def _is_hidden(pid: int) -> bool:
    if Path(f"/proc/{pid}").exists():
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return False


def host_identity() -> HostIdentity:
    """The host: one boot of one kernel and one pid namespace. A host name is not enough: containers may share it,
    and reuse pids.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    return HostIdentity(name=socket.gethostname(), key=f"{boot}:{namespace}")


def resident_kib(pid: int | str = "self") -> int:
    """Resident memory of a process in KiB; 0 if it is gone."""
    try:
        fd = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            pages = int(os.read(fd, 256).split()[1])
        finally:
            os.close(fd)
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third on. The second one, a name, may contain spaces and brackets."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except GONE:
        return None
    return stat.rpartition(")")[2].split()


def can_see_children() -> bool:
    """Whether this kernel shows the children of a process. Without that, no tree can be killed."""
    return Path(f"/proc/self/task/{os.getpid()}/children").exists()


def has_children() -> bool:
    """Whether this process has a child: its own, an adopted one, or one that is dead and not yet reaped.

    One system call. When a process dies, its children belong to the subreaper before its own status can be read.
    """
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
    except ChildProcessError:
        return False
    return True


def children_of(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except GONE:
        return []
    children: list[int] = []
    for thread in threads:
        try:
            listed = Path(f"/proc/{pid}/task/{thread}/children").read_text(encoding="ascii")
        except GONE:
            continue
        children.extend(int(child) for child in listed.split())
    return children


def descendants_of(roots: Iterable[int]) -> list[int]:
    """Every process below `roots`, parents before children, without `roots` themselves."""
    found: list[int] = []
    waiting = list(roots)
    while waiting:
        children = children_of(waiting.pop())
        found.extend(children)
        waiting.extend(children)
    return found


def describe_exit(status: int) -> str:
    """Describe a `Child.exitcode`: below 0 it is minus a signal's number, otherwise an exit status."""
    if status < 0:
        try:
            return f"killed by signal {-status} ({signal.Signals(-status).name})"
        except ValueError:
            return f"killed by signal {-status}"
    return f"exit status {status}"
