"""The programs of the master's children: check, template, worker, steward. Each is put together from its parts."""

from __future__ import annotations

import gc
import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from setproctitle import setproctitle

from reproq_prefork import __version__
from reproq_prefork.boot.application import Application, executor_of, load_application
from reproq_prefork.boot.fork_safety import unfit_for_workers
from reproq_prefork.boot.program_check import check_program
from reproq_prefork.errors import DatabaseIsCopy, DatabaseUnavailable, ExitStatus, ReproqError
from reproq_prefork.executors.forked import beside_threads
from reproq_prefork.executors.process_ends import begin_worker, end_worker
from reproq_prefork.executors.process_io import KILL_TIMEOUT_S
from reproq_prefork.fleet.state import Role
from reproq_prefork.master.programs import Kind, PeerPost, Shared
from reproq_prefork.model.identity import KnownServer, WorkerIdentity
from reproq_prefork.model.messages import TemplateUnfit, WorkerPost
from reproq_prefork.settings import Settings
from reproq_prefork.steward.loop import Steward
from reproq_prefork.store.statements import read_statements
from reproq_prefork.store.steward_store import StewardStore
from reproq_prefork.store.worker_store import WorkerStore
from reproq_prefork.text.log import Log
from reproq_prefork.unix import kill, proc
from reproq_prefork.unix.orders import Orders
from reproq_prefork.unix.panel import WorkerPanel
from reproq_prefork.unix.scoreboard import WorkerRecord, WorkerState
from reproq_prefork.unix.signals import CANCEL_SIGNAL, MASTERS_OWN, SignalInbox
from reproq_prefork.worker.database import Ledger
from reproq_prefork.worker.loop import Worker
from reproq_prefork.worker.steward_first import await_steward
from reproq_prefork.worker.template import Template

CHECK_TIMEOUT_S = (
    300  # longest time of a check, without the import of the application; then the kernel ends it
)
CHECK_RETRY_S = 0.5
RENEWALS_A_STATEMENT = 2  # so many renewals one statement of a steward may delay; a lease has six

# A child gets orders by TERM and QUIT. It ignores Ctrl-C and a terminal's hang-up, which reach every process of
# the terminal.
NOT_FOR_CHILDREN = tuple(signum for signum in MASTERS_OWN if signum not in (signal.SIGTERM, signal.SIGQUIT))


class ForkedPrograms:
    """`read_settings` reads everything again. `check_database` returns which server it is, and raises ReproqError
    if the database cannot be used.
    """

    def __init__(
        self,
        read_settings: Callable[[], Settings],
        check_database: Callable[[Settings], KnownServer],
        log: Log,
    ) -> None:
        self._read_settings = read_settings
        self._check_database = check_database
        self._log = log
        self.worker = Kind(self._work, signal.SIGTERM)
        self.peers: Mapping[Role, Kind[PeerPost]] = {
            Role.TEMPLATE: Kind(self._prepare, signal.SIGKILL),  # it holds nothing
            # A steward lives a moment longer than its master, to end the workers and reset their runs.
            Role.STEWARD: Kind(self._attend, death_signal=0),
        }

    def check(self, *, first: bool) -> Settings:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(CHECK_TIMEOUT_S)
        inbox = SignalInbox((), ignored=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        setproctitle("reproq-prefork: check")
        settings = self._read_settings()
        if not proc.can_see_children():
            raise ReproqError(
                "This kernel does not show the children of a process (/proc/PID/task/PID/children), so processes"
                " that a task leaves behind could not be killed. Run on Linux with CONFIG_PROC_CHILDREN."
            )
        signal.alarm(math.ceil(settings.boot_timeout_s))  # as long as a worker has for it
        check_program(settings)
        application = load_application(settings)
        inbox.restore()
        if application.threads:
            self._log.warning(beside_threads(application.threads))
        settings = application.complete(settings)
        signal.alarm(CHECK_TIMEOUT_S + math.ceil(settings.boot_timeout_s))
        return self._with_database(
            settings, application, patience_s=settings.boot_timeout_s if first else 0.0
        )

    def _with_database(self, settings: Settings, application: Application, *, patience_s: float) -> Settings:
        """Check the database, and let the application find its connection to it.

        At the first start the database may still be starting too, for example on a machine that boots.
        """
        gives_up_at = time.monotonic() + patience_s
        is_logged = False
        while True:
            try:
                known = self._check_database(settings)
                return application.located(replace(settings, known_server=known))
            except DatabaseIsCopy:
                raise  # waiting does not help: it stays a copy
            except DatabaseUnavailable as error:
                if time.monotonic() + CHECK_RETRY_S > gives_up_at:
                    raise
                if not is_logged:
                    self._log.warning(str(error), waiting_up_to_s=patience_s)
                    is_logged = True
                time.sleep(CHECK_RETRY_S)

    def _prepare(self, settings: Settings, shared: Shared, post: PeerPost) -> int:
        """Be a template, which forks workers that run `_work`."""
        inbox = SignalInbox((), ignored=MASTERS_OWN)
        setproctitle(f"reproq-prefork: {Role.TEMPLATE}")
        log = self._log_of(settings, Role.TEMPLATE)
        try:
            application = load_application(settings)
        except ReproqError as error:
            log.error(str(error))
            return error.exit_status
        inbox.restore()  # the application may have set its own handlers, for a server
        unfit = unfit_for_workers(application.files)
        if unfit is not None:
            post.channel.send(TemplateUnfit(unfit))
            return ExitStatus.OK
        read_statements()  # otherwise each worker would read them, into its own pages
        # The objects that exist now stay. If the garbage collector leaves them alone, their pages stay shared with
        # every worker.
        gc.collect()
        gc.freeze()
        template = Template(
            channel=post.channel,
            work=lambda worker: self._work(settings, shared, worker, application),
            keep_fds={*shared.fds, *application.files},
            parent_death_signal=self.worker.death_signal,
            log=log,
        )
        return template.run()

    def _work(
        self, settings: Settings, shared: Shared, post: WorkerPost, application: Application | None = None
    ) -> int:
        """`application` None: the worker imports it itself."""
        # Received and not ignored: a program that an inline task starts would ignore them too.
        inbox = SignalInbox(
            {signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD, CANCEL_SIGNAL, *NOT_FOR_CHILDREN}
        )
        name = f"{Role.WORKER} {post.slot}"
        setproctitle(f"reproq-prefork: {name} [booting]")
        proc.adopt_orphans()
        process = proc.own_identity()
        steward = shared.scoreboard.steward_place(post.generation)
        panel = WorkerPanel(
            shared.scoreboard,
            post.slot,
            WorkerRecord(
                incarnation=post.incarnation,
                pid=process.pid,
                pid_started=process.started,
                steward=steward,
                state=WorkerState.BOOTING,
                worker_id=post.worker_id,
            ),
        )
        identity = WorkerIdentity(
            id=post.worker_id,
            host=proc.host_identity(),
            process=process,
            master=shared.master,
            version=__version__,
            queues=settings.queues,
        )
        log = self._log_of(settings, name)
        is_fork = application is not None
        if application is None:
            try:
                application = load_application(settings)
            except ReproqError as error:
                log.error(str(error))
                return error.exit_status
            inbox.restore()
        begin_worker(log.warning, is_fork=is_fork)
        executor = executor_of(settings, application, log)
        orders = Orders(inbox, shared.life_fd)
        policy = settings.retry_policy

        def connect() -> WorkerStore:
            await_steward(shared.scoreboard, steward, panel, orders)
            return WorkerStore(
                settings.require_database_url(),
                identity,
                lease_s=settings.lease_s,
                system=settings.known_server.system,
                goes_on=panel.show_life,
            )

        ledger = Ledger(
            connect=connect,
            panel=panel,
            orders=orders,
            policy=policy,
            believed_lease_s=settings.believed_lease_s,
            log=log,
        )
        worker = Worker(
            settings=settings,
            slot=post.slot,
            steward=steward,
            scoreboard=shared.scoreboard,
            panel=panel,
            orders=orders,
            wake=shared.wake,
            ledger=ledger,
            policy=policy,
            executor=executor,
            log=log,
        )
        status = worker.run()
        end_worker(log.warning)
        kill.kill_own_descendants(within_s=KILL_TIMEOUT_S)  # helpers of the import, and pools that tasks kept
        return status

    def _attend(self, settings: Settings, shared: Shared, post: PeerPost) -> int:
        inbox = SignalInbox((signal.SIGQUIT,), ignored=(*NOT_FOR_CHILDREN, signal.SIGTERM))
        setproctitle(f"reproq-prefork: {Role.STEWARD}")
        host = proc.host_identity()
        steward = Steward(
            settings=settings,
            index=shared.scoreboard.steward_place(post.generation),
            scoreboard=shared.scoreboard,
            channel=post.channel,
            orders=Orders(inbox, shared.life_fd),
            wake=shared.wake,
            host=host,
            connect=lambda goes_on: StewardStore(
                settings.require_database_url(),
                application_name=f"reproq-prefork steward {host.name}",
                queues=settings.queues,
                max_attempts_ceiling=settings.max_attempts_ceiling,
                max_lock_wait_s=settings.renew_interval_s,
                system=settings.known_server.system,
                goes_on=goes_on,
                max_statement_s=RENEWALS_A_STATEMENT * settings.renew_interval_s,
            ),
            announces=settings.django_settings is not None,
            log=self._log_of(settings, Role.STEWARD),
        )
        return steward.run()

    def _log_of(self, settings: Settings, name: str) -> Log:
        return Log(settings.log_level, settings.log_format, fd=self._log.fd, name=name)
