"""How each kind of fault is done to a host, or to the server; every deed takes itself back before it returns.

A deed gives the processes that it hit, by the pids by which they know themselves, or none where it hit all of the
host.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import psutil
import psycopg

from tests.chaos.arena import Arena
from tests.chaos.container import own_pid
from tests.chaos.hosts import Host, worker_id_of
from tests.chaos.kinds import FLOOD, READ_ONLY, STOP_IN_COMMIT, UNREAD_LOG
from tests.chaos.schedule import Planned
from tests.support.postgres.databases import as_login
from tests.support.postgres.proxy import Break
from tests.support.supervisor.supervisor import Connection
from tests.support.waiting import wait_until

NEXT_STATEMENTS = 12  # of which one loses its reply
PRODUCERS_SHARE = 0.25
REPLY_TIMEOUT_S = 3.0
COMMIT_TIMEOUT_S = 3.0
FLOOD_MESSAGES = 2_000  # of one transaction
SLOW_DELAY_S = 0.03  # of each message, of which a statement is five


class NoVictim(Exception):
    """There is nobody of that kind at this moment."""


Pids = frozenset[int]


def _pick(victims: Iterable[int], planned: Planned) -> int:
    found = sorted(victims)
    if not found:
        raise NoVictim
    return random.Random(planned.dice).choice(found)


def _kill_worker(_arena: Arena, host: Host, planned: Planned) -> Pids:
    return _kill(_pick(host.supervisor.worker_pids(), planned))


def _kill_task(_arena: Arena, host: Host, planned: Planned) -> Pids:
    tasks = [
        child.pid
        for worker in host.supervisor.worker_pids()
        for child in psutil.Process(worker).children(recursive=True)
    ]
    pid = _pick(tasks, planned)
    # What a task has started is hit, and so is the task that waits for it.
    parents = {parent.pid for parent in psutil.Process(pid).parents()} & set(tasks)
    hit = _known_as(pid, *parents)
    os.kill(pid, signal.SIGKILL)
    return hit


def _kill_steward(_arena: Arena, host: Host, planned: Planned) -> Pids:
    return _kill(_pick(host.supervisor.steward_pids(), planned))


def _kill_template(_arena: Arena, host: Host, planned: Planned) -> Pids:
    return _kill(_pick(host.supervisor.template_pids(), planned))


def _kill(pid: int) -> Pids:
    hit = _known_as(pid)
    os.kill(pid, signal.SIGKILL)
    return hit


def _known_as(*pids: int) -> Pids:
    """While they live: of the dead nobody knows it any more."""
    return frozenset(map(own_pid, pids))


def _end_backend(arena: Arena, host: Host, planned: Planned) -> Pids:
    worker, backend = _worker_and_backend(arena, host, planned)
    with arena.connect() as connection:
        connection.execute("select pg_terminate_backend(%s)", [backend])
    return _known_as(worker)


def _worker_and_backend(arena: Arena, host: Host, planned: Planned) -> tuple[int, int]:
    workers = {own_pid(pid): pid for pid in host.supervisor.worker_pids()}
    with arena.connect() as connection:
        backends: dict[int, int] = dict(
            connection.execute(
                "select pid, backend_pid from reproq_workers"
                " where backend_pid is not null and pid = any (%s) and starts_with(id, %s)",
                [list(workers), worker_id_of(host.name)],
            ).fetchall()
        )
    worker = _pick(backends, planned)
    return workers[worker], backends[worker]


def _lose_reply(arena: Arena, host: Host, planned: Planned) -> Pids:
    """Of the host, or of a producer, who then does not know what has become of its runs."""
    proxy = arena.producers_proxy if planned.dice < PRODUCERS_SHARE else host.proxy
    proxy.break_statement(1 + int(planned.dice * NEXT_STATEMENTS), Break.AFTER)
    with contextlib.suppress(AssertionError):  # an idle host sends none
        wait_until(lambda: proxy.has_broken, REPLY_TIMEOUT_S, "the statement")
    return frozenset()


def _kill_master(_arena: Arena, host: Host, _planned: Planned) -> Pids:
    family = host.family()
    host.supervisor.send(signal.SIGKILL)
    host.bury(family)
    host.start()
    return frozenset()


def _kill_whole_host(_arena: Arena, host: Host, _planned: Planned) -> Pids:
    host.supervisor.send(signal.SIGSTOP)  # so that nobody is born meanwhile
    family = host.family()
    # With its pid 1 a container ends.
    for process in family[:1] if host.is_contained else reversed(family):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    host.bury(family)
    host.start()
    return frozenset()


def _stop_whole_host(_arena: Arena, host: Host, planned: Planned) -> Pids:
    host.supervisor.send(signal.SIGSTOP)
    _stopped_for([process.pid for process in host.family()], planned)
    return frozenset()


def _stop_worker(_arena: Arena, host: Host, planned: Planned) -> Pids:
    worker = _pick(host.supervisor.worker_pids(), planned)
    hit = _known_as(worker)
    _stopped_for([worker], planned)
    return hit


def _stop_master(_arena: Arena, host: Host, planned: Planned) -> Pids:
    _stopped_for([host.supervisor.pid], planned)
    return frozenset()


def _stop_steward(_arena: Arena, host: Host, planned: Planned) -> Pids:
    _stopped_for([_pick(host.supervisor.steward_pids(), planned)], planned)
    return frozenset()


def _stop_backend(arena: Arena, host: Host, planned: Planned) -> Pids:
    _stopped_for([_worker_and_backend(arena, host, planned)[1]], planned)
    return frozenset()


def _stopped_for(pids: Sequence[int], planned: Planned) -> None:
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        time.sleep(planned.lasts_s)
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def _reload(_arena: Arena, host: Host, _planned: Planned) -> Pids:
    host.supervisor.send(signal.SIGHUP)
    return frozenset()


def _stop_and_start(_arena: Arena, host: Host, _planned: Planned) -> Pids:
    host.stop()
    host.start()
    return frozenset()


def _crash_server(arena: Arena, _host: Host, planned: Planned) -> Pids:
    arena.server.stop("immediate")
    time.sleep(planned.lasts_s)
    arena.server.start()
    return frozenset()


def _cut_off(_arena: Arena, host: Host, planned: Planned) -> Pids:
    host.proxy.deaf = host.proxy.silent = True
    time.sleep(planned.lasts_s)
    host.proxy.deaf = host.proxy.silent = False
    return frozenset()


def _slow_link(_arena: Arena, host: Host, planned: Planned) -> Pids:
    host.proxy.delay_s = SLOW_DELAY_S
    time.sleep(planned.lasts_s)
    host.proxy.delay_s = 0.0
    return frozenset()


def _reset_links(arena: Arena, host: Host, _planned: Planned) -> Pids:
    host.proxy.reset()
    arena.producers_proxy.reset()
    return frozenset()


def _lock_table(arena: Arena, _host: Host, planned: Planned) -> Pids:
    with arena.connect() as connection, connection.transaction():
        connection.execute("lock table task_runs")
        time.sleep(planned.lasts_s)
    return frozenset()


def _stop_backend_in_commit(arena: Arena, host: Host, planned: Planned) -> Pids:
    """What it commits is in the log, and nobody can see it yet: as on a disk that stands still.

    The server would wait for a standby that it does not have, were it not for `synchronous_commit = local`; a
    trigger takes that back for this backend (`server_log`). There it is stopped, and no other signal reaches it.
    """
    worker, backend = _worker_and_backend(arena, host, planned)
    hit = _known_as(worker)
    with arena.connect() as connection:
        connection.execute("insert into stalls values (%s)", [backend])
        try:
            wait_until(lambda: _waits_in_commit(connection, backend), COMMIT_TIMEOUT_S, "a commit")
            os.kill(backend, signal.SIGSTOP)
        except AssertionError:
            raise NoVictim from None  # its worker is idle
        finally:
            connection.execute("delete from stalls")
        try:
            time.sleep(planned.lasts_s)
        finally:
            os.kill(backend, signal.SIGCONT)
            # If its worker has not ended it, it would wait on.
            connection.execute("select pg_cancel_backend(%s)", [backend])
    return hit


def _waits_in_commit(connection: Connection, backend: int) -> bool:
    row = connection.execute(
        "select from pg_stat_activity where pid = %s and wait_event = 'SyncRep'", [backend]
    ).fetchone()
    return row is not None


def _turn_read_only(arena: Arena, _host: Host, planned: Planned) -> Pids:
    """As a demotion does, with all connections open."""
    with arena.connect() as connection:
        try:
            connection.execute("alter system set default_transaction_read_only = on")
            connection.execute("select pg_reload_conf()")
            time.sleep(planned.lasts_s)
        finally:
            connection.execute("alter system reset default_transaction_read_only")
            connection.execute("select pg_reload_conf()")
    return frozenset()


def _flood(arena: Arena, _host: Host, planned: Planned) -> Pids:
    """As any login may."""
    channel = random.Random(planned.dice).choice(("reproq_task_runs", "reproq_cancel", "reproq_finished"))
    ends_at = time.monotonic() + planned.lasts_s
    with psycopg.connect(as_login(arena.server.url, "producer"), autocommit=True) as connection:
        while time.monotonic() < ends_at:
            connection.execute(
                "select pg_notify(%s, 'default' || number) from generate_series(1, %s) number",
                [channel, FLOOD_MESSAGES],
            )
    return frozenset()


def _leave_log_unread(_arena: Arena, host: Host, planned: Planned) -> Pids:
    with host.log.unread():
        time.sleep(planned.lasts_s)
    return frozenset()


Deed = Callable[[Arena, Host, Planned], Pids]
DEEDS: Mapping[str, Deed] = {
    "kill a worker": _kill_worker,
    "kill a task": _kill_task,
    "kill a steward": _kill_steward,
    "kill a template": _kill_template,
    "end a backend": _end_backend,
    "lose a reply": _lose_reply,
    "kill a master": _kill_master,
    "kill a whole host": _kill_whole_host,
    "stop a whole host": _stop_whole_host,
    "stop a worker": _stop_worker,
    "stop a master": _stop_master,
    "stop a steward": _stop_steward,
    "reload": _reload,
    "stop and start": _stop_and_start,
    "crash the server": _crash_server,
    "cut a host off": _cut_off,
    "stop a backend": _stop_backend,
    "slow a link": _slow_link,
    "reset the links": _reset_links,
    "lock the table": _lock_table,
    STOP_IN_COMMIT: _stop_backend_in_commit,
    READ_ONLY: _turn_read_only,
    FLOOD: _flood,
    UNREAD_LOG: _leave_log_unread,
}
OF_ALL = frozenset(
    {"crash the server", "stop a backend", "lock the table", "reset the links", READ_ONLY, FLOOD}
)
