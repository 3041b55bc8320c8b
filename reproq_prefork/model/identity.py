"""Identifies a process, so that nobody mistakes it for a later one with the same pid or host name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A pid and the start time of its process, in clock ticks since boot (field 22 of /proc/PID/stat)."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """The scope of a pid: one boot of one kernel, one pid namespace. `name` is for people."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class WorkerIdentity:
    """One fork of a worker. `id` is never used again by another fork: `task_runs.leased_by` names it."""

    id: str
    host: HostIdentity
    process: ProcessIdentity
    master: ProcessIdentity
    version: str
    queues: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KnownServer:
    """The database server that the check of a generation has found. The generation works with no other.

    `system`: its system identifier; None: not known, so any server will do. `connect_s`: how long a connect may
    take if only the last of its addresses answers.
    """

    system: int | None = None
    connect_s: float = 0.0
