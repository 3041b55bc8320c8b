"""The template: a process that has imported the application, and forks the workers of its generation.

The workers are children of the master, not of the template (`reparented_fork`). So the template supervises
nothing, and if it stops, hangs or dies, only the forks stop. It holds nothing that it would have to hand back. The
master ends it by SIGKILL. It exits by itself as soon as anything is unusual, and another template takes its place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection

from reproq_prefork.errors import ExitStatus
from reproq_prefork.model.messages import (
    TemplateLoaded,
    TemplateUnfit,
    WorkerExpected,
    WorkerMade,
    WorkerNotMade,
    WorkerPost,
)
from reproq_prefork.text.log import Log
from reproq_prefork.unix.channel import Channel, PeerGone
from reproq_prefork.unix.reparented_fork import Handover, IntermediateLost
from reproq_prefork.unix.signals import wait_readable
from reproq_prefork.unix.threads import threads_at_risk

FLUSH_INTERVAL_S = 0.05  # when the kernel is short of memory for a message


class Template:
    def __init__(
        self,
        *,
        channel: Channel,
        work: Callable[[WorkerPost], int],
        keep_fds: Collection[int],
        parent_death_signal: int,
        log: Log,
    ) -> None:
        """`work` is the function that a worker runs, with the descriptors `keep_fds`. A worker gets
        `parent_death_signal` when its master dies.
        """
        self._channel = channel
        self._work = work
        self._keep_fds = keep_fds
        self._parent_death_signal = parent_death_signal
        self._log = log
        self._heard: deque[object] = deque()

    def run(self) -> ExitStatus:
        """Fork the workers that the master asks for, until it is gone."""
        try:
            self._channel.send(TemplateLoaded())
            while True:
                post = self._hear()
                assert isinstance(post, WorkerPost)
                threads = threads_at_risk()
                if threads:
                    late = f"threads ({', '.join(threads)}) were started since it was imported"
                    self._channel.send(TemplateUnfit(late))
                    return ExitStatus.OK
                self._fork_worker(post)
        except PeerGone:
            return ExitStatus.OK
        except IntermediateLost as lost:
            self._log.error(f"a worker could not be forked: {lost}")
            return ExitStatus.FAILURE

    def _fork_worker(self, post: WorkerPost) -> None:
        try:
            handover = Handover(
                lambda: self._work(post),
                keep_fds=self._keep_fds,
                parent_death_signal=self._parent_death_signal,
            )
        except OSError as error:
            self._channel.send(WorkerNotMade(post, error.strerror or str(error)))
            return
        try:
            self._channel.send(WorkerMade(post, handover.pid))
            self._wait_until_expected(handover.pid)
        except PeerGone:
            handover.drop()
            raise
        handover.complete()

    def _wait_until_expected(self, pid: int) -> None:
        """Wait until the master expects this worker. Posts that arrive before that are kept for later."""
        posts: list[object] = []
        while True:
            message = self._hear()
            if message == WorkerExpected(pid):
                self._heard.extendleft(reversed(posts))
                return
            posts.append(message)

    def _hear(self) -> object:
        """Wait for the next message and return it. Raises PeerGone."""
        while not self._heard:
            wait_readable((self._channel.fileno(),), None if self._channel.all_sent else FLUSH_INTERVAL_S)
            self._channel.flush()
            self._heard.extend(self._channel.receive())
        return self._heard.popleft()
