"""The master: wait for an event, decide, act. No database, no threads, no user code.

So neither a server that hangs nor a broken deploy can stop the supervision. `fleet.decide` decides. This file only
notices events and carries out actions.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from reproq_prefork.errors import ExitStatus
from reproq_prefork.fleet.actions import (
    AbandonCheck,
    Action,
    AdoptSettings,
    DumpState,
    EndMaster,
    Fork,
    ForkWorker,
    NotifySystemd,
    RequestWorker,
    SendSignal,
    ShowQuiet,
    StartCheck,
    TellSteward,
    WakeWorkers,
    WriteLog,
)
from reproq_prefork.fleet.decide import decide
from reproq_prefork.fleet.events import (
    Drained,
    Event,
    Exited,
    Forked,
    ForkFailed,
    OrphansGone,
    RunsReset,
    SignalCame,
    Started,
    TemplateReady,
    TemplateRefused,
    WorkerExited,
)
from reproq_prefork.fleet.state import Fleet, Phase, Role
from reproq_prefork.master.check import SettingsCheck
from reproq_prefork.master.peers import Templates
from reproq_prefork.master.programs import Programs, StewardPost
from reproq_prefork.master.state_dump import state_dump
from reproq_prefork.master.views import Views
from reproq_prefork.model.messages import (
    QueuesDrained,
    TemplateLoaded,
    TemplateUnfit,
    WorkerMade,
    WorkerNotMade,
    WorkerPost,
    WorkerReset,
)
from reproq_prefork.settings import Settings
from reproq_prefork.text.log import Log
from reproq_prefork.unix import kill, proc
from reproq_prefork.unix.channel import Channel, PeerGone
from reproq_prefork.unix.fork import Child, fork
from reproq_prefork.unix.scoreboard import MasterRecord, Scoreboard, WorkerRecord, WorkerState, boottime_ns
from reproq_prefork.unix.signals import MASTERS_OWN, SignalInbox, wait_readable
from reproq_prefork.unix.systemd import Notifier
from reproq_prefork.unix.wake_pipe import WakePipe

MASTER_SIGNALS = (*MASTERS_OWN, signal.SIGCHLD)
WORKERS_DEATH_SIGNAL = signal.SIGTERM  # when their master dies
CALM_WAIT_S = 0.25
BUSY_WAIT_S = 0.02  # while something is expected that no descriptor reports
ORPHANS_TIMEOUT_S = 0.2


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
        """`token` is unique to this master, so the ids of its workers are unique too."""
        self._programs = programs
        self._inbox = inbox
        self._scoreboard = scoreboard
        self._notifier = notifier
        self._log = log
        self._token = token
        self._identity = proc.own_identity()
        self._wake = WakePipe()
        # When this process is gone, the children read the pipe as closed. Nothing is ever written to it.
        self._life_fd, self._life_writer = os.pipe2(os.O_CLOEXEC)
        self._fleet = Fleet(max_slots=scoreboard.slots, max_generations=scoreboard.stewards)
        self._settings: dict[int, Settings] = {}
        self._workers: dict[int, Child] = {}
        self._worker_ids: dict[int, str] = {}
        self._views = Views(scoreboard)
        self._stewards: dict[int, Child] = {}
        self._templates = Templates()
        self._channels: dict[int, Channel] = {}
        self._check = SettingsCheck()
        self._exit_status: ExitStatus | None = None

    def run(self) -> ExitStatus:
        """Supervise until told to stop, or until the workers cannot boot."""
        proc.adopt_orphans()
        self._feed(Started())
        while self._exit_status is None:
            self._wait()
            for signum in self._inbox.take():
                self._feed(SignalCame(signum))
            self._reap()
            self._end_orphans()
            self._hear_stewards()
            self._hear_templates(self._templates.hear())
            self._feed(self._views.of(self._fleet))
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
        """Keep the settings of existing generations only. Log as the current generation wants it.

        So the log settings of a reload count only after its workers are ready.
        """
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
        """Look at every known child, because signals that come together are merged (50 deaths gave 31 SIGCHLD)."""
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
                self._feed(Exited(Role.STEWARD, generation, proc.describe_exit(process.exitcode)))
        checked = self._check.ended()
        if checked is not None:
            self._feed(checked)

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
            proc.describe_exit(status),
            left_in_order=record is not None and record.state is WorkerState.STOPPED,
            started=None if record is None else record.started_run,
            unrecorded=unrecorded or (),
            torn=record is None or unrecorded is None,
            registered=record is not None and record.lease_end_ns > 0,
        )

    def _end_orphans(self) -> None:
        """Kill the processes that dead workers' tasks, and dead templates, have started.

        They are now children of this process, but not its own ones. A worker that a template forks is known before
        it becomes a child.
        """
        if not self._fleet.awaits_orphans:
            return
        own = (*self._workers.values(), *self._stewards.values())
        spared = {*(child.pid for child in own), *self._check.pids, *self._templates.pids}
        if kill.kill_own_descendants(spare=spared, within_s=ORPHANS_TIMEOUT_S):
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
                    self._feed(Forked(Role.WORKER, generation, pid, slot))
                    self._templates.expect(generation, pid)
                case WorkerNotMade(slot, _, reason):
                    self._feed(ForkFailed(Role.WORKER, generation, reason, slot))
                case Exited():
                    self._feed(message)

    # --- actions ---

    def _act(self, action: Action) -> Event | None:  # noqa: C901 (one line an action)
        match action:
            case StartCheck():
                first = not self._fleet.generations
                return self._check.start(lambda: self._programs.check(first=first))
            case AbandonCheck():
                self._check.abandon()
            case AdoptSettings(generation):
                assert self._check.checked is not None
                self._note_other_server(self._check.checked)
                self._settings[generation], self._check.checked = self._check.checked, None
            case ForkWorker():
                return self._fork_worker(action)
            case RequestWorker(generation, slot, incarnation):
                self._templates.request(generation, self._post(generation, slot, incarnation))
            case Fork(Role.TEMPLATE, generation):
                return self._fork_template(generation)
            case Fork(Role.STEWARD, generation):
                return self._fork_steward(generation)
            case SendSignal(pid, signum):
                # Our child, and not reaped yet, so no other process can have its pid.
                kill.send_signal(pid, signum)
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
            case EndMaster(status):
                self._exit_status = status
        return None

    def _note_other_server(self, new: Settings) -> None:
        """Warn if a reload moves to another server. It may be on purpose, but an accident should be visible."""
        if not self._settings:
            return
        newest = self._settings[max(self._settings)]
        if new.known_server.system != newest.known_server.system:
            self._log.warning("the database is on another server now", system=new.known_server.system)

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
            return ForkFailed(Role.WORKER, action.generation, error.strerror or str(error), action.slot)
        self._know_worker(post, worker)
        return Forked(Role.WORKER, action.generation, worker.pid, action.slot)

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
            return ForkFailed(Role.STEWARD, generation, error.strerror or str(error))
        post = StewardPost(self._scoreboard.steward_place(generation), theirs, self._life_fd)
        try:
            # No parent death signal: it lives a moment longer than the master, to end the workers and reset their
            # runs.
            steward = fork(
                lambda: self._programs.attend(settings, post, self._scoreboard, self._wake),
                keep_fds={*self._wake.fds, self._life_fd, theirs.fileno()},
                parent_death_signal=0,
            )
        except OSError as error:
            ours.close()
            return ForkFailed(Role.STEWARD, generation, error.strerror or str(error))
        finally:
            theirs.close()
        self._stewards[generation] = steward
        self._channels[generation] = ours
        return Forked(Role.STEWARD, generation, steward.pid)
