"""Ask the database which runs the worker holds: after a lost connection, once a lease, and during a task.

`asking` says when. Raises `ConnectionLost`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection

from reproq_prefork.errors import ReproqError
from reproq_prefork.model.run import Token
from reproq_prefork.store.outcomes import ConnectionLost, StatementRefused, ValueRefused
from reproq_prefork.text.log import Log
from reproq_prefork.unix.panel import WorkerPanel
from reproq_prefork.worker.asking import Asking
from reproq_prefork.worker.link import Link
from reproq_prefork.worker.recording import Recording


class Reconciling:
    """`lease_is_over`: found out after a lost connection. Attempts that had ended before still count."""

    def __init__(
        self, *, link: Link, asking: Asking, recording: Recording, panel: WorkerPanel, log: Log
    ) -> None:
        self._link = link
        self._asking = asking
        self._recording = recording
        self._panel = panel
        self._log = log
        self.lease_is_over = False

    def connect_again(self, lost: ReproqError) -> None:
        """Connect, end the old server process, then ask which runs are held. One try; waits if it fails."""
        holding = self._recording.is_holding
        state = self._panel.record.state
        self._link.store.close()
        self._link.open(holding=holding)
        store = self._link.store
        self._panel.update(state=state)
        try:
            old_is_gone = store.end_previous_backend()
            held = store.held_runs()
            # The old process stays registered until it is seen gone. If we die, the steward must see it gone.
            has_lease = store.reconnected(old_is_gone=old_is_gone)
        except (ConnectionLost, StatementRefused, ValueRefused) as error:
            self._link.pause(error, holding=holding)
            return
        now = time.monotonic()
        self._asking.connected_again(now, pooled=store.backend.pooled, old_is_gone=old_is_gone)
        self._asking.asked(now)
        self._recording.sort(held)
        self._recording.blame(lost)
        self._link.lost = None
        if not has_lease:
            # Nobody took over the runs while the database was not available.
            self.lease_is_over = True
            self._recording.carried.hasten()
        self._panel.update(backend_pid=store.backend.pid)
        self._log.info("connected again")

    def ask(self) -> None:
        """Ask which runs are held. Hand back those that are not known here."""
        try:
            self._look_for_old_process()
            held = self._link.store.held_runs()
        except (StatementRefused, ValueRefused):
            self._asking.asked(time.monotonic(), is_answered=False)
        else:
            self._asking.asked(time.monotonic())
            self._recording.sort(held)

    @property
    def asks_amid_task_in_s(self) -> float:
        """In how many seconds to call `ask_amid_task` while a task runs; infinity: not at all."""
        now = time.monotonic()
        return max(0.0, self._asking.at - now) if self._asking.is_in_doubt(now) else math.inf

    def ask_amid_task(self, known: Collection[Token]) -> None:
        """Hand back the runs that are held, except `known` ones and those whose ends are carried along.

        Returns soon, and raises nothing.
        """
        store = self._link.store
        is_answered = False
        try:
            with store.in_haste():
                self._look_for_old_process()
                unknown = store.held_runs() - {*known, *self._recording.carried.tokens}
                if unknown:
                    store.finish_and_claim(self._recording.handed_back(unknown), max_runs=0)
                is_answered = True
        except (ConnectionLost, StatementRefused, ValueRefused):
            pass
        self._asking.asked(time.monotonic(), is_answered=is_answered)

    def _look_for_old_process(self) -> None:
        store = self._link.store
        if not self._asking.awaits_old_process:
            return
        if store.end_previous_backend(within_s=0.0) and store.reconnected():
            self._asking.old_process_is_gone(time.monotonic())
