"""Every statement of a short life of an installation fails once, in each way in which one can fail.

A master with one worker starts, runs three tasks, and stops when nothing is left. The Nth statement that any of
its processes sends is broken, for N = 1, 2, 3, … until a whole life has passed without it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import psycopg
import pytest

from reproq_prefork.model.run import LEGAL_EDGES
from tests.support.postgres.databases import new_database
from tests.support.postgres.proxy import Break, Proxy
from tests.support.postgres.servers import Server
from tests.support.rows import audit
from tests.support.supervisor.supervisor import Connection, Supervisor, add_run, diary, run_row

LANES = 4  # which run side by side
LONGEST_LIFE_S = 40.0
ENVIRON = {"REPROQ_LEASE": "2s", "REPROQ_BOOT_TIMEOUT": "20s"}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("lane", range(LANES))
@pytest.mark.parametrize("way", Break, ids=lambda way: way.name.lower())
def test_any_statement_may_break_and_every_run_ends_once_within_its_charged_attempts(
    server: Server, template_url: str, tmp_path: Path, way: Break, lane: int
) -> None:
    for number in itertools.count(1 + lane, LANES):
        directory = tmp_path / str(number)
        directory.mkdir()
        with (
            new_database(server.url, template_url) as url,
            psycopg.connect(url, autocommit=True) as connection,
            Proxy(url) as proxy,
        ):
            audit.install(connection)
            lives = _live(connection, proxy, directory, number, way)
            if not proxy.has_broken:
                assert number > 15, "a life has more statements than that"
                return
            try:
                _check(connection, directory / "diary", way)
            except AssertionError as error:
                raise AssertionError(f"statement {number}, {way.value}, {lives} lives: {error}") from error


def _live(connection: Connection, proxy: Proxy, directory: Path, number: int, way: Break) -> int:
    """Until nothing is left to do; how often it had to be started, as systemd would."""
    pages = str(directory / "diary")
    add_run(connection, {"diary": pages})
    add_run(connection, {"diary": pages, "exit": 1, "fail_attempts": 1}, retry_base_seconds=0.1)
    add_run(connection, {"diary": pages}, max_attempts=1)
    proxy.break_statement(number, way)
    for lives in range(1, 4):
        life = Supervisor(proxy.url, directory, workers=1, environ=ENVIRON, arguments=("--drain",))
        with life.starting():
            if life.wait(LONGEST_LIFE_S) == 0:
                return lives
    raise AssertionError(f"statement {number}, {way.value}: it does not come to an end")


def _check(connection: Connection, pages: Path, way: Break) -> None:
    runs = [
        run_row(connection, run_id)
        for (run_id,) in connection.execute("select id from task_runs order by id")
    ]
    assert audit.edges(connection) <= LEGAL_EDGES
    assert audit.final_transitions(connection) == Counter({row["id"]: 1 for row in runs})
    starts = Counter(run_id for what, run_id, *_ in diary(pages) if what == "start")
    plain, fails_once, only_once = runs
    if way is not Break.KILL:
        assert [row["status"] for row in runs] == ["SUCCESSFUL"] * 3
        assert [row["attempts"] for row in runs] == [1, 2, 1]
        assert [starts[row["id"]] for row in runs] == [1, 2, 1]
        return
    assert plain["status"] == fails_once["status"] == "SUCCESSFUL"
    assert only_once["status"] in ("SUCCESSFUL", "FAILED")
    for row in runs:
        assert starts[row["id"]] <= row["attempts"] <= 3, f"run {row['id']}: {starts[row['id']]} starts"
    assert starts[only_once["id"]] <= 1
