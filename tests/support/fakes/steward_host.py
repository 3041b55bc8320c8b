"""A steward's host: its workers on a scoreboard, and a database that is made up."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from typing import Any, cast

from reproq_prefork.steward.look_for_work import LookForWork
from reproq_prefork.steward.notice_cancels import NoticeCancels
from reproq_prefork.steward.renew_leases import RenewLeases
from reproq_prefork.store.steward_store import RunToCancel, Sight, StewardStore
from reproq_prefork.text.log import Log, LogFormat, LogLevel
from reproq_prefork.unix import proc
from reproq_prefork.unix.scoreboard import LeaseRecord, Scoreboard, WorkerRecord, WorkerState, boottime_ns

STEWARD = 1


class ScriptedStore:
    """Says what a test has set; `asked` is what it was asked."""

    def __init__(self) -> None:
        self.cancelled: list[RunToCancel] = []
        self.runs_are_due = False
        self.is_finish_due = False
        self.locked: tuple[str, ...] = ()  # queues of which somebody keeps the lock
        self.asked: list[Any] = []
        self.renewal_takes_s = 0.0

    def look(self, worker_ids: Collection[str], *, announces: bool) -> Sight:
        self.asked.append((sorted(worker_ids), announces))
        to_cancel = tuple(run for run in self.cancelled if run.worker_id in worker_ids)
        return Sight(self.runs_are_due, self.is_finish_due, to_cancel)

    def renew_leases(self, worker_ids: Collection[str], *, lease_s: float) -> frozenset[str]:
        time.sleep(self.renewal_takes_s)
        return frozenset(worker_ids)

    def await_new_runs(self) -> tuple[str, ...]:
        self.asked.append("await")
        return self.locked

    def ignore_new_runs(self) -> None:
        self.asked.append("ignore")

    def listen(self) -> None:
        self.asked.append("listen")

    def stop_listening(self) -> None:
        self.asked.append("stop listening")


class Host:
    """A scoreboard with workers, all in this process."""

    def __init__(self) -> None:
        self.scripted = ScriptedStore()
        self.store = cast(StewardStore, self.scripted)
        self.board = Scoreboard(slots=3, stewards=2)
        self.log_reader, writer = os.pipe()
        self.log = Log(LogLevel.DEBUG, LogFormat.JSON, fd=writer)
        self._log_writer = writer
        self.notice = NoticeCancels(self.board, STEWARD, log=self.log)
        self.woken: list[str] = []
        self.look = self.make_look(announces=False)
        self.renew = RenewLeases(self.board, STEWARD, period_s=1, lease_s=60, believed_lease_s=50)

    def make_look(self, *, announces: bool) -> LookForWork:
        return LookForWork(
            self.board,
            STEWARD,
            period_s=1,
            announces=announces,
            wake=lambda: self.woken.append("all"),
            wake_one=lambda: self.woken.append("one"),
            cancels=self.notice,
        )

    def add_worker(self, slot: int, **changes: Any) -> None:
        process = proc.own_identity()
        record: dict[str, Any] = {
            "incarnation": 10 + slot,
            "pid": process.pid,
            "pid_started": process.started,
            "steward": STEWARD,
            "state": WorkerState.BUSY,
            "lease_end_ns": boottime_ns() + 10**12,
            "worker_id": f"w{slot}",
        }
        self.board.write_worker(slot, WorkerRecord(**(record | changes)))

    def said_of(self, slot: int) -> LeaseRecord:
        """What its steward last said of the worker that is in the slot."""
        record = self.board.read_worker(slot)
        assert record is not None
        return self.board.lease_of(slot, record)

    def close(self) -> None:
        os.close(self.log_reader)
        os.close(self._log_writer)
