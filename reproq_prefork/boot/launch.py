"""From settings to a running master: puts together the pid file, the scoreboard, the signals and the rest."""

from __future__ import annotations

import os
import secrets
import traceback
from collections.abc import Callable, Mapping

from setproctitle import setproctitle

from reproq_prefork.boot.children import ForkedPrograms
from reproq_prefork.boot.file_watch import run_watched
from reproq_prefork.boot.pid1 import run_below_init
from reproq_prefork.errors import ExitStatus, ReproqError, SettingsError
from reproq_prefork.master.loop import MASTER_SIGNALS, Master
from reproq_prefork.model.identity import KnownServer
from reproq_prefork.settings import Settings
from reproq_prefork.text.log import Log
from reproq_prefork.text.outlet import write_text_at_once
from reproq_prefork.unix.pidfile import PidFile
from reproq_prefork.unix.scoreboard import Scoreboard
from reproq_prefork.unix.signals import SignalInbox
from reproq_prefork.unix.systemd import Notifier

MIN_SLOTS = 32
SLOTS_A_WORKER = 4  # a reload needs twice the workers, and TTIN may have doubled them before
GENERATIONS = 8  # generations that still finish long tasks after a reload count too


def run_master(
    settings: Settings,
    *,
    read_settings: Callable[[], Settings],
    check_database: Callable[[Settings], KnownServer],
    environ: Mapping[str, str],
) -> int:
    """Be the master until told to stop. Returns the exit status.

    `read_settings` reads them again for a reload. `check_database` returns which server it is, and raises
    ReproqError if the database cannot be used. Both run in a child. Raises `SettingsError`.
    """
    try:
        os.chdir(settings.chdir)
    except OSError as error:
        raise SettingsError([f"--chdir: cannot change to {settings.chdir}: {error.strerror}"]) from None
    log = Log(settings.log_level, settings.log_format)
    notifier = _notifier(environ)

    def supervise() -> int:
        pid_file = PidFile(settings.pid_file) if settings.pid_file is not None else None
        try:
            if pid_file is not None:
                pid_file.acquire()
            setproctitle("reproq-prefork: master")
            inbox = SignalInbox(MASTER_SIGNALS)
            slots = max(MIN_SLOTS, SLOTS_A_WORKER * settings.workers)
            return Master(
                programs=ForkedPrograms(read_settings, check_database, log),
                inbox=inbox,
                scoreboard=Scoreboard(slots=slots, stewards=GENERATIONS),
                notifier=notifier,
                log=log,
                token=secrets.token_hex(3),
            ).run()
        except ReproqError as error:
            log.error(str(error))
            return error.exit_status
        except Exception:
            # The interpreter would block on a full standard error instead of ending.
            write_text_at_once(log.fd, traceback.format_exc())
            return ExitStatus.FAILURE
        finally:
            if pid_file is not None:
                pid_file.release()

    def supervise_and_watch() -> int:
        return run_watched(supervise, settings.chdir, log)

    program = supervise_and_watch if settings.reload else supervise
    return run_below_init(program) if os.getpid() == 1 else program()


def _notifier(environ: Mapping[str, str]) -> Notifier:
    watchdog_usec = environ.get("WATCHDOG_USEC", "")
    is_ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    watchdog_s = int(watchdog_usec) / 1e6 if watchdog_usec.isdigit() and is_ours else None
    return Notifier(environ.get("NOTIFY_SOCKET"), watchdog_s=watchdog_s)
