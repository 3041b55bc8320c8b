"""Opens a connection in short steps, one address after the other, with a sign of life at each step.

An address that swallows every packet costs `connect_timeout`. A URL may name several addresses, and a host name
may have several. A process that waits for all of them in one call looks dead to its master, which would kill it
before it tries the address that answers. libpq's non-blocking functions (`PQconnectPoll`) have no time limit, so
each address is one attempt with a limit here, as in psycopg's `connect()`.
"""

from __future__ import annotations

import ipaddress
import random
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import conninfo, pq
from psycopg.pq.abc import PGconn

STEP_S = 0.25
NAME_LOOKUP_S = 60.0  # a single step: the C library returns only when it has an answer or has given up
NO_TIMEOUT_S = 130  # psycopg's value for `connect_timeout=0`, about what Linux allows a connect
MIN_TIMEOUT_S = 2  # as in libpq

# We must know these before libpq sees them. If the URL does not give one, a variable of libpq (PGHOST) may.
_KEYWORDS = ("service", "host", "hostaddr", "port", "target_session_attrs", "load_balance_hosts")

GoesOn = Callable[[float], bool]


def always(_for_s: float) -> bool:
    """The sign of life of a process that nobody watches."""
    return True


class OpeningAbandoned(psycopg.OperationalError):
    """`goes_on` returned False."""


def open_connection(parameters: Mapping[str, Any], *, goes_on: GoesOn, for_writing: bool) -> PGconn:
    """A libpq connection to the first address that accepts it. Raises `psycopg.Error`.

    `goes_on` is called before each step, several times a second, with the seconds that the step may take. If it
    returns False, the attempt ends. `for_writing`: if there are several addresses, skip the servers that are
    read-only, unless the URL itself says which servers it wants.
    """
    reasons: list[str] = []
    attempts = split_addresses(_known(parameters))
    timeout_s = _timeout_s(parameters)
    for attempt in attempts:
        try:
            places = _resolved(attempt, goes_on)
        except OSError as error:
            reasons.append(f"the name {attempt['host']} cannot be resolved: {error.strerror or error}")
            continue
        for place in places:
            several = len(attempts) > 1 or len(places) > 1
            wish = {"target_session_attrs": "read-write"} if for_writing and several else {}
            try:
                return _opened({**wish, **parameters, **place}, timeout_s, goes_on)
            except OpeningAbandoned:
                raise
            except psycopg.Error as error:
                reasons.append(str(error).strip())
    raise psycopg.OperationalError("\n".join(reasons) or "no address is named")


def longest_open_s(parameters: Mapping[str, Any]) -> float:
    """How long `open_connection` may take if only the last address answers."""
    places = 0
    for attempt in split_addresses(_known(parameters)):
        try:
            places += len(_resolved(attempt, always))
        except OSError:
            places += 1
    return places * float(_timeout_s(parameters))


def split_addresses(parameters: Mapping[str, str]) -> Sequence[Mapping[str, str]]:
    """One mapping for each host that `parameters` name, in the order in which to try them.

    Reads the lists as libpq does (its section 32.1.1.3): as many ports as hosts, or one for all. Only libpq knows
    what a service file says, so that is one attempt. Raises `psycopg.Error`.
    """
    if parameters.get("service"):
        return [{}]
    lists = {
        name: parameters[name].split(",") for name in ("host", "hostaddr", "port") if parameters.get(name)
    }
    hosts = max(len(lists.get("host", "")), len(lists.get("hostaddr", "")), 1)
    if len(lists.get("port", "")) == 1:
        lists["port"] *= hosts
    if any(len(values) != hosts for values in lists.values()):
        counts = ", ".join(f"{len(values)} of {name}" for name, values in lists.items())
        raise psycopg.OperationalError(f"the lists of addresses do not match: {counts}")
    attempts = [{name: values[place] for name, values in lists.items()} for place in range(hosts)]
    if parameters.get("load_balance_hosts") == "random":
        random.shuffle(attempts)
    if parameters.get("target_session_attrs") == "prefer-standby":
        # libpq sees one address at a time, so we apply the preference here.
        return [{**each, "target_session_attrs": wish} for wish in ("standby", "any") for each in attempts]
    return attempts


def _known(parameters: Mapping[str, Any]) -> Mapping[str, str]:
    defaults = {
        option.keyword.decode(): option.val.decode()
        for option in pq.Conninfo.get_defaults()
        if option.val is not None
        and option.keyword != b"service"  # PGSERVICE: its values are already among these
    }
    if "service" in parameters:
        defaults = {}  # a service is stronger than a variable
    known = {**defaults, **{name: str(value) for name, value in parameters.items()}}
    return {name: known[name] for name in _KEYWORDS if name in known}


def _timeout_s(parameters: Mapping[str, Any]) -> int:
    said = parameters.get("connect_timeout", 0)
    try:
        timeout_s = int(float(said))
    except (ValueError, OverflowError):
        raise psycopg.OperationalError(f"connect_timeout must be a number of seconds, not {said!r}") from None
    return max(MIN_TIMEOUT_S, timeout_s) if timeout_s > 0 else NO_TIMEOUT_S


def _resolved(attempt: Mapping[str, str], goes_on: GoesOn) -> Sequence[Mapping[str, str]]:
    """The attempt, once for each address of its host name. Raises OSError."""
    host = attempt.get("host", "")
    if not host or host[0] in "/@" or attempt.get("hostaddr"):
        return [attempt]
    if _is_address(host):
        return [{**attempt, "hostaddr": host}]
    _take_step(goes_on, NAME_LOOKUP_S)
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [{**attempt, "hostaddr": address} for address in dict.fromkeys(str(each[4][0]) for each in found)]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _opened(parameters: Mapping[str, Any], timeout_s: float, goes_on: GoesOn) -> PGconn:
    gives_up_at = time.monotonic() + timeout_s
    connection = pq.PGconn.connect_start(conninfo.make_conninfo(**parameters).encode())
    try:
        while True:
            if connection.status == pq.ConnStatus.BAD:
                raise psycopg.OperationalError(connection.get_error_message())
            match connection.connect_poll():
                case pq.PollingStatus.OK:
                    connection.nonblocking = 1
                    return connection
                case pq.PollingStatus.READING:
                    awaited = select.POLLIN
                case pq.PollingStatus.WRITING:
                    awaited = select.POLLOUT
                case _:
                    raise psycopg.OperationalError(connection.get_error_message())
            _wait(connection.socket, awaited, gives_up_at, goes_on, timeout_s)
    except BaseException:
        connection.finish()
        raise


def _wait(fd: int, awaited: int, gives_up_at: float, goes_on: GoesOn, timeout_s: float) -> None:
    """Wait until `fd` is ready: libpq must not be called before that."""
    poll = select.poll()
    poll.register(fd, awaited)
    while True:
        left_s = gives_up_at - time.monotonic()
        if left_s <= 0:
            raise psycopg.OperationalError(f"no answer from this address within {timeout_s:g} s")
        _take_step(goes_on, STEP_S)
        if poll.poll(min(STEP_S, left_s) * 1000):
            return


def _take_step(goes_on: GoesOn, for_s: float) -> None:
    if not goes_on(for_s):
        raise OpeningAbandoned("this process was told to stop meanwhile")
