"""The workers of the master. It forks them itself, or a template does."""

from __future__ import annotations

from collections.abc import Iterator

from reproq_prefork.fleet.events import Forked, ForkFailed, WorkerExited
from reproq_prefork.fleet.state import Role
from reproq_prefork.master.programs import Kind, Shared
from reproq_prefork.model.messages import WorkerPost
from reproq_prefork.settings import Settings
from reproq_prefork.unix import proc
from reproq_prefork.unix.fork import Child, fork
from reproq_prefork.unix.scoreboard import Scoreboard, WorkerRecord, WorkerState


class Workers:
    """By slot."""

    def __init__(self, kind: Kind[WorkerPost], shared: Shared) -> None:
        self._kind = kind
        self._shared = shared
        self._children: dict[int, tuple[Child, WorkerPost]] = {}

    @property
    def pids(self) -> list[int]:
        return [child.pid for child, _ in self._children.values()]

    def fork(self, post: WorkerPost, settings: Settings) -> Forked | ForkFailed:
        try:
            child = fork(
                lambda: self._kind.program(settings, self._shared, post),
                keep_fds=self._shared.fds,
                parent_death_signal=self._kind.death_signal,
            )
        except OSError as error:
            return ForkFailed(Role.WORKER, post.generation, error.strerror or str(error), post.slot)
        return self.know(post, child)

    def know(self, post: WorkerPost, child: Child) -> Forked:
        self._children[post.slot] = child, post
        return Forked(Role.WORKER, post.generation, child.pid, post.slot)

    def reap(self) -> Iterator[WorkerExited]:
        for slot, (child, post) in list(self._children.items()):
            if child.exitcode is not None:
                del self._children[slot]
                yield _exited(post, child.exitcode, self._shared.scoreboard)


def _exited(post: WorkerPost, status: int, scoreboard: Scoreboard) -> WorkerExited:
    record = scoreboard.read_worker(post.slot)
    if record is not None and record.incarnation != post.incarnation:
        record = WorkerRecord()  # it died before it wrote anything
    unrecorded = scoreboard.unrecorded_of(post.slot, post.incarnation)
    return WorkerExited(
        post.slot,
        post.worker_id,
        status,
        proc.describe_exit(status),
        left_in_order=record is not None and record.state is WorkerState.STOPPED,
        started=None if record is None else record.started_run,
        unrecorded=unrecorded or (),
        torn=record is None or unrecorded is None,
        registered=record is not None and record.lease_end_ns > 0,
    )
