"""The master: wait for an event, decide, act. No database, no threads, no code of the user's.

So neither a hung server nor a broken deploy can take supervision down. What to decide is `fleet.decide`; here
is only how events are noticed and actions carried out.
"""

from __future__ import annotations

import os
import pickle
import signal
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from reproq_prefork import processes
from reproq_prefork.channel import Channel, PeerGone
from reproq_prefork.child import Child, fork
from reproq_prefork.errors import ExitStatus, ReproqError
from reproq_prefork.fleet import decide
from reproq_prefork.fleet_state import (
    AbandonCheck,
    Action,
    AdoptSettings,
    CheckFailed,
    CheckPassed,
    Drained,
    DumpState,
    Event,
    Exit,
    Fleet,
    ForkFailed,
    ForkSteward,
    ForkTemplate,
    ForkWorker,
    Limits,
    Look,
    NotifySystemd,
    OrphansGone,
    Phase,
    RequestWorker,
    RunsReset,
    SendSignal,
    ShowQuiet,
    SignalCame,
    StartCheck,
    Started,
    StewardExited,
    StewardForked,
    TellSteward,
    TemplateExited,
    TemplateReady,
    TemplateRefused,
    WakeWorkers,
    WorkerExited,
    WorkerForked,
    WorkerView,
    WriteLog,
)
from reproq_prefork.log import Log
from reproq_prefork.messages import (
    QueuesDrained,
    TemplateLoaded,
    TemplateUnfit,
    WorkerMade,
    WorkerNotMade,
    WorkerPost,
    WorkerReset,
)
from reproq_prefork.scoreboard import MasterRecord, Scoreboard, WorkerRecord, WorkerState, boottime_ns
from reproq_prefork.settings import Settings
from reproq_prefork.signals import MASTERS_OWN, SignalInbox, wait_readable
from reproq_prefork.state_dump import state_dump
from reproq_prefork.systemd import Notifier
from reproq_prefork.templates import Templates
from reproq_prefork.wakeup import WakePipe

MASTER_SIGNALS = (*MASTERS_OWN, signal.SIGCHLD)
WORKERS_DEATH_SIGNAL = signal.SIGTERM  # when their master dies
CALM_WAIT_S = 0.25
BUSY_WAIT_S = 0.02  # while something is on its way that no descriptor tells of
ORPHANS_TIMEOUT_S = 0.2


@dataclass(frozen=True, slots=True)
class StewardPost:
    index: int
    channel: Channel
    life_fd: int


class Programs(Protocol):
    """What the children run; each in a fork, with all signals still blocked."""

    def check(self, *, first: bool) -> Settings:
        """Read the settings anew and try them. Raises ReproqError."""

    def work(self, settings: Settings, post: WorkerPost, scoreboard: Scoreboard, wake: WakePipe) -> int: ...

    def attend(
        self, settings: Settings, post: StewardPost, scoreboard: Scoreboard, wake: WakePipe
    ) -> int: ...

    def prepare(
        self, settings: Settings, channel: Channel, scoreboard: Scoreboard, wake: WakePipe, life_fd: int
    ) -> int:
        """Be a template, that forks workers which `work`."""


class Master:
    def __init__(
        self,
        *,
        programs: Programs,
        inbox: SignalInbox,
        scoreboard: Scoreboard,
        notifier: Notifier,
        log: Log,
        token: str,
    ) -> None:
        """`token` is unique to this master: it makes the ids of its worker forks so."""
        self._programs = programs
        self._inbox = inbox
        self._scoreboard = scoreboard
        self._notifier = notifier
        self._log = log
        self._token = token
        self._identity = processes.own_identity()
        self._wake = WakePipe()
        # The children read its end as closed when this process is gone; nothing is ever written.
        self._life_fd, self._life_writer = os.pipe2(os.O_CLOEXEC)
        self._fleet = Fleet(max_slots=scoreboard.slots, max_generations=scoreboard.stewards)
        self._settings: dict[int, Settings] = {}
        self._checked: Settings | None = None
        self._workers: dict[int, Child] = {}
        self._worker_ids: dict[int, str] = {}
        # The incarnation whose record could last be read in a slot, and when.
        self._read_at: dict[int, tuple[int, float]] = {}
        self._stewards: dict[int, Child] = {}
        self._templates = Templates()
        self._channels: dict[int, Channel] = {}
        self._check: Child | None = None
        self._check_result_fd = -1
        self._exit_status: ExitStatus | None = None

    def run(self) -> ExitStatus:
        """Supervise until told to stop, or until there is no point in going on."""
        processes.adopt_orphans()
        self._feed(Started())
        while self._exit_status is None:
            self._wait()
            for signum in self._inbox.take():
                self._feed(SignalCame(signum))
            self._reap()
            self._end_orphans()
            self._hear_stewards()
            self._hear_templates(self._templates.hear())
            self._feed(self._look())
            self._notifier.show_life()
        return self._exit_status

    def _feed(self, event: Event) -> None:
        events = deque([event])
        while events:
            self._fleet, actions = decide(self._fleet, events.popleft(), boottime_ns() / 1e9)
            for action in actions:
                answer = self._act(action)
                if answer is not None:
                    events.append(answer)
            self._keep_settings()

    def _keep_settings(self) -> None:
        """Those of the generations that there are. The master logs as the current one says: a reload counts once
        its workers are ready."""
        for number in self._settings.keys() - self._fleet.generations.keys():
            del self._settings[number]
        current = self._fleet.current
        if current is not None:
            settings = self._settings[current.number]
            if (settings.log_level, settings.log_format) != (self._log.level, self._log.format):
                self._log = replace(self._log, level=settings.log_level, format=settings.log_format)

    # --- events ---

    def _wait(self) -> None:
        fleet = self._fleet
        in_motion = (
            fleet.awaits_orphans
            or fleet.phase is not Phase.RUNNING
            or any(not worker.ready for worker in fleet.workers.values())
        )
        channels = (channel.fileno() for channel in self._channels.values())
        fds = (self._inbox.fileno(), *channels, *self._templates.fds)
        wait_readable(fds, BUSY_WAIT_S if in_motion else CALM_WAIT_S)

    def _reap(self) -> None:
        """Look at every known child: signals that come together are one (50 deaths gave 31 SIGCHLD)."""
        self._hear_templates(self._templates.reap())
        for slot, process in list(self._workers.items()):
            if process.exitcode is not None:
                del self._workers[slot]
                self._feed(self._worker_exited(slot, process.exitcode))
        for generation, process in list(self._stewards.items()):
            if process.exitcode is not None:
                del self._stewards[generation]
                self._hear_steward(generation)
                self._channels.pop(generation).close()
                self._feed(StewardExited(generation, processes.describe_exit(process.exitcode)))
        if self._check is not None and self._check.exitcode is not None:
            status, self._check = self._check.exitcode, None
            self._feed(self._check_ended(status))

    def _worker_exited(self, slot: int, status: int) -> WorkerExited:
        record = self._scoreboard.read_worker(slot)
        incarnation = self._fleet.workers[slot].incarnation
        if record is not None and record.incarnation != incarnation:
            record = WorkerRecord()  # it died before it wrote anything
        unrecorded = self._scoreboard.unrecorded_of(slot, incarnation)
        return WorkerExited(
            slot,
            self._worker_ids.pop(slot),
            status,
            processes.describe_exit(status),
            left_in_order=record is not None and record.state is WorkerState.STOPPED,
            started=None if record is None else record.started_run,
            unrecorded=unrecorded or (),
            torn=record is None or unrecorded is None,
            registered=record is not None and record.lease_end_ns > 0,
        )

    def _check_ended(self, status: int) -> CheckPassed | CheckFailed:
        with os.fdopen(self._check_result_fd, "rb") as result_file:
            result_file.seek(0)
            written = result_file.read()
        if not written:
            how = processes.describe_exit(status)
            if status == -signal.SIGALRM:
                how = "nothing came of it in the time that a worker has to become ready (--boot-timeout)"
            return CheckFailed(f"the check of the settings itself failed: {how}", ExitStatus.FAILURE)
        result = pickle.loads(written)  # noqa: S301 (from a fork of this process, through memory without a name)
        if isinstance(result, ReproqError):
            return CheckFailed(str(result), result.exit_status)
        assert isinstance(result, Settings)
        self._checked = result
        return CheckPassed(_limits(result))

    def _end_orphans(self) -> None:
        """End what dead workers' tasks, and dead templates, have started. It is this process' child now, and
        none of its own. A worker that a template has made is known before it becomes a child.
        """
        if not self._fleet.awaits_orphans:
            return
        own = (*self._workers.values(), *self._stewards.values(), *((self._check,) if self._check else ()))
        spared = {*(child.pid for child in own), *self._templates.pids}
        if processes.kill_own_descendants(spare=spared, within_s=ORPHANS_TIMEOUT_S):
            self._feed(OrphansGone())

    def _hear_stewards(self) -> None:
        for generation in list(self._channels):
            self._channels[generation].flush()
            self._hear_steward(generation)

    def _hear_steward(self, generation: int) -> None:
        try:
            messages = self._channels[generation].receive()
        except PeerGone:
            return  # its exit will be seen
        for message in messages:
            match message:
                case WorkerReset(worker_id):
                    self._feed(RunsReset(generation, worker_id))
                case QueuesDrained():
                    self._feed(Drained(generation))

    def _hear_templates(self, messages: Iterable[tuple[int, object]]) -> None:
        for generation, message in messages:
            match message:
                case TemplateLoaded():
                    self._feed(TemplateReady(generation))
                case TemplateUnfit(reason):
                    self._feed(TemplateRefused(generation, reason))
                case WorkerMade(slot, incarnation, pid):
                    self._know_worker(self._post(generation, slot, incarnation), Child(pid))
                    self._feed(WorkerForked(slot, pid))
                    self._templates.expect(generation, pid)
                case WorkerNotMade(slot, _, reason):
                    self._feed(ForkFailed(generation, slot, reason))
                case TemplateExited():
                    self._feed(message)

    def _look(self) -> Look:
        views = {}
        for slot, worker in self._fleet.workers.items():
            record = self._scoreboard.read_worker(slot)
            if record is not None:
                views[slot] = self._view(slot, worker.incarnation, record)
                if record.incarnation == worker.incarnation:
                    self._read_at[slot] = (worker.incarnation, boottime_ns() / 1e9)
            else:
                views[slot] = self._torn_view(slot, worker.incarnation, is_ready=worker.ready)
        heartbeats = {}
        for number in self._fleet.generations:
            steward = self._scoreboard.read_steward(self._scoreboard.steward_place(number))
            if steward is not None:
                heartbeats[number] = steward.heartbeat_ns / 1e9
        return Look(views, heartbeats)

    def _view(self, slot: int, incarnation: int, record: WorkerRecord) -> WorkerView:
        if record.incarnation != incarnation:
            return WorkerView(
                incarnation, booting=True, registered=False, deadline_at=None, lease_ends_at=None
            )
        busy = record.state is WorkerState.BUSY
        return WorkerView(
            incarnation,
            booting=record.state is WorkerState.BOOTING,
            registered=record.is_registered,
            deadline_at=record.deadline_ns / 1e9 if busy and record.deadline_ns else None,
            lease_ends_at=self._scoreboard.lease_end_ns(slot, record) / 1e9 if busy else None,
            seen_at=None if busy else record.seen_ns / 1e9,
            connecting=record.state is WorkerState.CONNECTING,
        )

    def _torn_view(self, slot: int, incarnation: int, *, is_ready: bool) -> WorkerView:
        """Of a worker that stays inside a write of its record (stopped there, it shows no sign of life), or of
        one that boots in the place of a worker that died there.
        """
        read_incarnation, read_at = self._read_at.get(slot, (0, 0.0))
        is_its_own = read_incarnation == incarnation
        return WorkerView(
            incarnation,
            booting=not is_its_own,
            registered=is_ready,
            deadline_at=None,
            lease_ends_at=None,
            seen_at=read_at if is_its_own else None,
        )

    # --- actions ---

    def _act(self, action: Action) -> Event | None:  # noqa: C901 (one line an action)
        match action:
            case StartCheck():
                return self._start_check()
            case AbandonCheck():
                self._abandon_check()
            case AdoptSettings(generation):
                assert self._checked is not None
                self._note_other_server(self._checked)
                self._settings[generation], self._checked = self._checked, None
            case ForkWorker():
                return self._fork_worker(action)
            case RequestWorker(generation, slot, incarnation):
                self._templates.request(generation, self._post(generation, slot, incarnation))
            case ForkTemplate(generation):
                return self._fork_template(generation)
            case ForkSteward(generation):
                return self._fork_steward(generation)
            case SendSignal(pid, signum):
                # A child of ours that is not reaped yet: its pid cannot be somebody else's.
                processes.send_signal(pid, signum)
            case TellSteward(generation, lost):
                if generation in self._channels:
                    self._channels[generation].send(lost)
            case ShowQuiet(quiet):
                self._scoreboard.write_master(MasterRecord(quiet=quiet))
            case WakeWorkers():
                workers = len(self._workers)
                self._wake.wake(workers, at_most_waiting=workers)
            case DumpState():
                for line in state_dump(self._fleet, self._scoreboard, boottime_ns()):
                    self._log.info(line)
            case NotifySystemd(state):
                self._notifier.tell(state)
            case WriteLog(level, message):
                self._log.write(level, message)
            case Exit(status):
                self._exit_status = status
        return None

    def _note_other_server(self, new: Settings) -> None:
        """A reload may move to another server on purpose; one that does so by accident should be seen."""
        if not self._settings:
            return
        newest = self._settings[max(self._settings)]
        if new.known_server.system != newest.known_server.system:
            self._log.warning("the database is on another server now", system=new.known_server.system)

    def _start_check(self) -> Event | None:
        first = not self._fleet.generations
        try:
            result_fd = os.memfd_create("reproq-prefork-check")
        except OSError as error:
            return _check_not_started(error)

        def program() -> int:
            try:
                result: object = self._programs.check(first=first)
            except ReproqError as error:
                result = error
            os.write(result_fd, pickle.dumps(result))
            return ExitStatus.OK

        try:
            self._check = fork(program, keep_fds={result_fd}, parent_death_signal=signal.SIGKILL)
        except OSError as error:
            os.close(result_fd)
            return _check_not_started(error)
        self._check_result_fd = result_fd
        return None

    def _abandon_check(self) -> None:
        if self._check is not None:
            self._check.kill()
            os.close(self._check_result_fd)
            self._check = None

    def _fork_worker(self, action: ForkWorker) -> Event:
        settings = self._settings[action.generation]
        post = self._post(action.generation, action.slot, action.incarnation)
        try:
            worker = fork(
                lambda: self._programs.work(settings, post, self._scoreboard, self._wake),
                keep_fds={*self._wake.fds, self._life_fd},
                parent_death_signal=WORKERS_DEATH_SIGNAL,
            )
        except OSError as error:
            return ForkFailed(action.generation, action.slot, error.strerror or str(error))
        self._know_worker(post, worker)
        return WorkerForked(action.slot, worker.pid)

    def _post(self, generation: int, slot: int, incarnation: int) -> WorkerPost:
        return WorkerPost(
            slot=slot,
            incarnation=incarnation,
            steward=self._scoreboard.steward_place(generation),
            worker_id=f"{self._settings[generation].worker_id}/{slot}-{self._token}-{incarnation}",
            master=self._identity,
            life_fd=self._life_fd,
        )

    def _know_worker(self, post: WorkerPost, worker: Child) -> None:
        self._workers[post.slot] = worker
        self._worker_ids[post.slot] = post.worker_id

    def _fork_template(self, generation: int) -> Event:
        settings = self._settings[generation]
        return self._templates.fork(
            generation,
            lambda channel: self._programs.prepare(
                settings, channel, self._scoreboard, self._wake, self._life_fd
            ),
            keep_fds={*self._wake.fds, self._life_fd},
        )

    def _fork_steward(self, generation: int) -> Event:
        settings = self._settings[generation]
        try:
            ours, theirs = Channel.pair()
        except OSError as error:
            return ForkFailed(generation, None, error.strerror or str(error))
        post = StewardPost(self._scoreboard.steward_place(generation), theirs, self._life_fd)
        try:
            # It outlives the master for a moment, to bury what the master leaves: no parent death signal.
            steward = fork(
                lambda: self._programs.attend(settings, post, self._scoreboard, self._wake),
                keep_fds={*self._wake.fds, self._life_fd, theirs.fileno()},
                parent_death_signal=0,
            )
        except OSError as error:
            ours.close()
            return ForkFailed(generation, None, error.strerror or str(error))
        finally:
            theirs.close()
        self._stewards[generation] = steward
        self._channels[generation] = ours
        return StewardForked(generation, steward.pid)


def _limits(settings: Settings) -> Limits:
    return Limits(
        workers=settings.workers,
        boot_timeout_s=settings.boot_timeout_s,
        shutdown_timeout_s=settings.shutdown_timeout_s,
        fence_grace_s=settings.fence_grace_s,
        has_template=settings.runs_python,
        connect_s=2 * settings.known_server.connect_s,  # the steward connects first, and then the worker
    )


def _check_not_started(error: OSError) -> CheckFailed:
    return CheckFailed(f"no process can be started for the check: {error.strerror}", ExitStatus.FAILURE)
