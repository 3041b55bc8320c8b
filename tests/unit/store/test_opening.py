"""Connecting address by address: how long each may take, and the signs of life meanwhile."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping

import psycopg
import pytest

from reproq_prefork.store import opening
from reproq_prefork.store.opening import (
    NAME_LOOKUP_S,
    STEP_S,
    OpeningAbandoned,
    always,
    longest_open_s,
    open_connection,
    split_addresses,
)
from tests.support.postgres.deaf import deaf_ports


@pytest.mark.parametrize(
    ("parameters", "attempts"),
    [
        ({}, [{}]),
        ({"host": "db"}, [{"host": "db"}]),
        ({"host": "db", "port": "6000"}, [{"host": "db", "port": "6000"}]),
        (
            {"host": "a,b", "port": "6000"},
            [{"host": "a", "port": "6000"}, {"host": "b", "port": "6000"}],
        ),
        (
            {"host": "a,b", "port": "1,2", "hostaddr": "10.0.0.1,10.0.0.2"},
            [
                {"host": "a", "port": "1", "hostaddr": "10.0.0.1"},
                {"host": "b", "port": "2", "hostaddr": "10.0.0.2"},
            ],
        ),
        ({"hostaddr": "10.0.0.1,10.0.0.2"}, [{"hostaddr": "10.0.0.1"}, {"hostaddr": "10.0.0.2"}]),
        ({"host": "/run/postgresql,db"}, [{"host": "/run/postgresql"}, {"host": "db"}]),
        ({"host": "a,b", "service": "queue"}, [{}]),
        (
            {"host": "a,b", "target_session_attrs": "prefer-standby"},
            [
                {"host": host, "target_session_attrs": wish}
                for wish in ("standby", "any")
                for host in ("a", "b")
            ],
        ),
    ],
)
def test_each_host_of_a_url_is_tried_separately(
    parameters: Mapping[str, str], attempts: list[Mapping[str, str]]
) -> None:
    assert list(split_addresses(parameters)) == attempts


def test_hosts_that_share_the_load_are_tried_in_any_order() -> None:
    hosts = [f"db{number}" for number in range(10)]
    parameters = {"host": ",".join(hosts), "load_balance_hosts": "random"}
    orders = [[each["host"] for each in split_addresses(parameters)] for _ in range(20)]
    assert all(sorted(order) == sorted(hosts) for order in orders)
    assert len({tuple(order) for order in orders}) > 1


@pytest.mark.parametrize(
    "parameters", [{"host": "a,b", "port": "1,2,3"}, {"host": "a,b", "hostaddr": "10.0.0.1"}]
)
def test_lists_of_different_lengths_are_refused(parameters: Mapping[str, str]) -> None:
    with pytest.raises(psycopg.OperationalError, match="the lists of addresses do not match"):
        split_addresses(parameters)


@pytest.fixture
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address may be given a second, which is less than libpq allows."""
    monkeypatch.setattr(opening, "MIN_TIMEOUT_S", 1)


@pytest.mark.usefixtures("short_limits")
def test_silent_addresses_time_out_one_after_the_other_with_constant_signs_of_life() -> None:
    signs: list[float] = []

    def goes_on(for_s: float) -> bool:
        assert for_s == STEP_S
        signs.append(time.monotonic())
        return True

    with deaf_ports(2) as ports:
        parameters = {"host": "127.0.0.1,127.0.0.1", "port": f"{ports[0]},{ports[1]}", "connect_timeout": "1"}
        began_at = time.monotonic()
        with pytest.raises(psycopg.OperationalError) as refused:
            open_connection(parameters, goes_on=goes_on, for_writing=True)
        ended_at = time.monotonic()
    assert str(refused.value).count("no answer from this address within 1 s") == 2
    assert 2 <= ended_at - began_at < 4
    gaps = [later - earlier for earlier, later in zip([began_at, *signs], [*signs, ended_at], strict=True)]
    assert max(gaps) < 1.0
    assert longest_open_s(parameters) == 2


def test_a_process_that_is_told_to_stop_gives_up_at_once() -> None:
    with deaf_ports(1) as ports:
        parameters = {"host": "127.0.0.1", "port": str(ports[0]), "connect_timeout": "60"}
        began_at = time.monotonic()
        with pytest.raises(OpeningAbandoned):
            open_connection(parameters, goes_on=lambda _: time.monotonic() < began_at + 0.5, for_writing=True)
        assert time.monotonic() - began_at < 2


def test_the_error_of_each_address_is_reported() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    parameters = {"host": "127.0.0.1,nowhere.invalid", "port": str(port), "connect_timeout": "2"}
    with pytest.raises(psycopg.OperationalError) as refused:
        open_connection(parameters, goes_on=always, for_writing=True)
    assert "Connection refused" in str(refused.value)
    assert "the name nowhere.invalid cannot be resolved" in str(refused.value)


@pytest.mark.usefixtures("short_limits")
def test_the_sign_of_life_before_a_name_lookup_covers_the_longest_lookup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signs: list[float] = []

    def look_up(host: str, *_: object, **__: object) -> list[object]:
        assert (host, signs[:1]) == ("db.internal", [NAME_LOOKUP_S])
        return [(None, None, None, None, (address, 0)) for address in ("127.0.0.1", "127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with deaf_ports(1) as ports:
        parameters = {"host": "db.internal", "port": str(ports[0]), "connect_timeout": "1"}
        with pytest.raises(psycopg.OperationalError):
            open_connection(parameters, goes_on=lambda for_s: not signs.append(for_s), for_writing=True)  # type: ignore[func-returns-value]
        assert longest_open_s({**parameters, "connect_timeout": 3}) == 6


@pytest.mark.parametrize(("said", "timeout_s"), [("1", 2), ("7", 7), ("0", 130), ("-1", 130), ("2.9", 2)])
def test_the_time_limit_of_an_address_is_read_as_libpq_reads_it(said: str, timeout_s: int) -> None:
    assert longest_open_s({"host": "127.0.0.1", "connect_timeout": said}) == timeout_s


def test_a_time_limit_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(psycopg.OperationalError, match="must be a number of seconds, not 'soon'"):
        open_connection({"connect_timeout": "soon"}, goes_on=always, for_writing=True)
