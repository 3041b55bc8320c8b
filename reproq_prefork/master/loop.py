"""The master: wait for an event, decide, act. No database, no threads, no user code.

So neither a server that hangs nor a broken deploy can stop the supervision. `fleet.decide` decides. This file only
notices events and carries out actions.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Iterator
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
    ForkFailed,
    OrphansGone,
    RunsReset,
    SignalCame,
    Started,
    TemplateReady,
    TemplateRefused,
)
from reproq_prefork.fleet.state import Fleet, Phase, Role
from reproq_prefork.master.check import SettingsCheck
from reproq_prefork.master.peers import Peers
from reproq_prefork.master.programs import Programs, Shared
from reproq_prefork.master.state_dump import state_dump
from reproq_prefork.master.views import Views
from reproq_prefork.master.workers import Workers
from reproq_prefork.model.messages import (
    QueuesDrained,
    TemplateLoaded,
    TemplateUnfit,
    WorkerExpected,
    WorkerMade,
    WorkerNotMade,
    WorkerPost,
    WorkerReset,
)
from reproq_prefork.settings import Settings
from reproq_prefork.text.log import Log
from reproq_prefork.unix import kill, proc
from reproq_prefork.unix.fork import Child
from reproq_prefork.unix.scoreboard import MasterRecord, Scoreboard, boottime_ns
from reproq_prefork.unix.signals import MASTERS_OWN, SignalInbox, wait_readable
from reproq_prefork.unix.systemd import Notifier
from reproq_prefork.unix.wake_pipe import WakePipe

MASTER_SIGNALS = (*MASTERS_OWN, signal.SIGCHLD)
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
        self._notifier = notifier
        self._log = log
        self._token = token
        # When this process is gone, the children read the pipe as closed. Nothing is ever written to it.
        life_fd, self._life_writer = os.pipe2(os.O_CLOEXEC)
        self._shared = Shared(proc.own_identity(), scoreboard, WakePipe(), life_fd)
        self._fleet = Fleet(max_slots=scoreboard.slots, max_generations=scoreboard.stewards)
        self._settings: dict[int, Settings] = {}
        self._workers = Workers(programs.worker, self._shared)
        self._peers = {role: Peers(role, kind, self._shared) for role, kind in programs.peers.items()}
        self._views = Views(scoreboard)
        self._check = SettingsCheck()
        self._exit_status: ExitStatus | None = None

    def run(self) -> ExitStatus:
        """Supervise until told to stop, or until the workers cannot boot."""
        proc.adopt_orphans()
        self._feed(Started())
        while self._exit_status is None:
            self._wait()
            for event in self._notice():
                self._feed(event)
            self._notifier.show_life()
        return self._exit_status

    # --- wait, and notice events ---

    def _wait(self) -> None:
        fleet = self._fleet
        in_motion = (
            fleet.awaits_orphans
            or fleet.phase is not Phase.RUNNING
            or any(not worker.ready for worker in fleet.workers.values())
        )
        channels = (fd for peers in self._peers.values() for fd in peers.fds)
        wait_readable((self._inbox.fileno(), *channels), BUSY_WAIT_S if in_motion else CALM_WAIT_S)

    def _notice(self) -> Iterator[Event]:
        """What has happened. The fleet knows each event before the next is looked for."""
        yield from map(SignalCame, self._inbox.take())
        # Look at every known child, because signals that come together are merged (50 deaths gave 31 SIGCHLD).
        # The steward last: it ends after the workers, and then no other must follow it.
        yield from self._workers.reap()
        for peers in self._peers.values():
            yield from self._hear(peers.reap())
        checked = self._check.ended()
        if checked is not None:
            yield checked
        yield from self._end_orphans()
        for peers in self._peers.values():
            yield from self._hear(peers.hear())
        yield self._views.of(self._fleet)

    def _end_orphans(self) -> Iterator[OrphansGone]:
        """Kill the processes that dead workers' tasks, and dead templates, have started.

        They are now children of this process, but not its own ones. A worker that a template forks is known before
        it becomes a child.
        """
        if not self._fleet.awaits_orphans:
            return
        peers = (pid for peers in self._peers.values() for pid in peers.pids)
        spared = {*self._workers.pids, *peers, *self._check.pids}
        if kill.kill_own_descendants(spare=spared, within_s=ORPHANS_TIMEOUT_S):
            yield OrphansGone()

    def _hear(self, messages: Iterator[tuple[int, object]]) -> Iterator[Event]:
        for generation, message in messages:
            match message:
                case WorkerReset(worker_id):
                    yield RunsReset(generation, worker_id)
                case QueuesDrained():
                    yield Drained(generation)
                case TemplateLoaded():
                    yield TemplateReady(generation)
                case TemplateUnfit(reason):
                    yield TemplateRefused(generation, reason)
                case WorkerMade(post, pid):
                    yield self._workers.know(post, Child(pid))
                    self._peers[Role.TEMPLATE].send(generation, WorkerExpected(pid))
                case WorkerNotMade(post, reason):
                    yield ForkFailed(Role.WORKER, generation, reason, post.slot)
                case Exited():
                    yield message

    # --- decide ---

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

    # --- act ---

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
            case Fork(role, generation):
                return self._peers[role].fork(generation, self._settings[generation])
            case ForkWorker(generation):
                return self._workers.fork(self._post(action), self._settings[generation])
            case RequestWorker(generation):
                self._peers[Role.TEMPLATE].send(generation, self._post(action))
            case SendSignal(pid, signum):
                # Our child, and not reaped yet, so no other process can have its pid.
                kill.send_signal(pid, signum)
            case TellSteward(generation, lost):
                self._peers[Role.STEWARD].send(generation, lost)
            case ShowQuiet(quiet):
                self._shared.scoreboard.write_master(MasterRecord(quiet=quiet))
            case WakeWorkers():
                workers = len(self._workers.pids)
                self._shared.wake.wake(workers, at_most_waiting=workers)
            case DumpState():
                for line in state_dump(self._fleet, self._shared.scoreboard, boottime_ns()):
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

    def _post(self, action: ForkWorker | RequestWorker) -> WorkerPost:
        of_host = self._settings[action.generation].worker_id
        worker_id = f"{of_host}/{action.slot}-{self._token}-{action.incarnation}"
        return WorkerPost(action.generation, action.slot, action.incarnation, worker_id)
