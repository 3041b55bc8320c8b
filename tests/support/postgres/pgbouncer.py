"""PgBouncer before a server: in transaction mode with fewer connections to the server than it has clients, or in
session mode."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.support.postgres.databases import LOGINS, PASSWORD
from tests.support.waiting import wait_until

ADDRESS = "127.0.0.1"
ACCOUNT = "nobody"  # it refuses to run as root


@contextlib.contextmanager
def pooler(
    database_url: str, *, connections: int, mode: str = "transaction", takes_turns: bool = False
) -> Iterator[str]:
    """The URL of `database_url` by way of it. Skips the test where it is not installed.

    `takes_turns`: of its connections that are free it takes the one that was used longest ago; else the last one.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.skip("PgBouncer is not installed (the package pgbouncer)")
    server = urlsplit(database_url)
    users = {str(server.username): str(server.password)} | dict.fromkeys(LOGINS, PASSWORD)
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="reproq-pgbouncer-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "users").write_text("".join(f'"{user}" "{word}"\n' for user, word in users.items()))
        (directory / "config").write_text(
            "[databases]\n"
            f"* = host={server.hostname} port={server.port}\n"
            "[pgbouncer]\n"
            f"listen_addr = {ADDRESS}\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {directory / 'users'}\n"
            f"pool_mode = {mode}\nserver_round_robin = {int(takes_turns)}\n"
            f"default_pool_size = {connections}\nmax_client_conn = 200\n"
        )
        as_account = ["--user", ACCOUNT] if os.geteuid() == 0 else []
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, *as_account, str(directory / "config")], stdout=log, stderr=log
            )
        url = server._replace(netloc=f"{server.username}@{ADDRESS}:{port}").geturl()
        try:
            wait_until(lambda: _answers(url), 10, "PgBouncer to answer")
            yield url
        finally:
            process.terminate()
            process.wait(10)


def _answers(url: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, autocommit=True):
        return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])
