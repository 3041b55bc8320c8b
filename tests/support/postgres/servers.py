"""Which PostgreSQL the tests run on: one that is named, else a container, else the embedded one."""

from __future__ import annotations

import contextlib
import gc
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import docker
import docker.errors
import psycopg
import pytest

from reproq_prefork.demo.postgres import EmbeddedPostgres
from tests.support.unix.memory import shared_memory

DEFAULT_IMAGE = "postgres:18"
CONNECT_TIMEOUT_S = 10
ENGINE_TIMEOUT_S = 5
PULL_TIMEOUT_S = 120  # between two answers of the engine, not for the whole image
CONTAINER_START_TIMEOUT_S = 60


@dataclass(frozen=True)
class Server:
    """A running server: the URL of a role that may create databases, its version, and where it came from."""

    url: str
    version: str
    origin: str

    @classmethod
    def at(cls, url: str, origin: str) -> Server:
        with psycopg.connect(url, connect_timeout=CONNECT_TIMEOUT_S) as connection:
            return cls(url, connection.info.parameter_status("server_version") or "?", origin)

    def __str__(self) -> str:
        return f"PostgreSQL {self.version}, {self.origin}"


class NoContainer(Exception):
    """No container could be had; the message says why, in plain words."""


@contextlib.contextmanager
def running_server() -> Iterator[Server]:
    """The first server that can be had; it is stopped afterwards if it was started here."""
    url = os.environ.get("REPROQ_TEST_DATABASE_URL")
    if url:
        yield _named(url)
        return
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(_container())
        except NoContainer as reason:
            embedded = stack.enter_context(embedded_server())
            server = Server.at(embedded.url, f"the embedded server ({reason})")
        yield server


def _named(url: str) -> Server:
    try:
        return Server.at(url, "named by REPROQ_TEST_DATABASE_URL")
    except psycopg.OperationalError as error:
        # Falling through to another server would test something else than was asked for.
        raise pytest.UsageError(f"the server of REPROQ_TEST_DATABASE_URL does not answer: {error}") from None


@contextlib.contextmanager
def _container() -> Iterator[Server]:
    image = os.environ.get("REPROQ_TEST_POSTGRES_IMAGE", DEFAULT_IMAGE)
    if not image:
        raise NoContainer("REPROQ_TEST_POSTGRES_IMAGE is empty")
    _ensure_image(image)
    # testcontainers reads these once, when it is imported; its reaper would be one more image to pull.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
    os.environ.setdefault("TC_MAX_TRIES", str(CONTAINER_START_TIMEOUT_S * 10))
    os.environ.setdefault("TC_POOLING_INTERVAL", "0.1")
    from testcontainers.community.postgres import PostgresContainer

    container = PostgresContainer(image, driver=None).with_command("-c fsync=off")
    container.with_tmpfs_mount("/var/lib/postgresql")
    container.with_kwargs(shm_size="512m")  # what vacuums in parallel share; Docker's default is 64 MiB
    try:
        container.start()
        server = Server.at(container.get_connection_url(), f"a container of {image}")
    except Exception as error:
        container.stop()
        raise NoContainer(f"a container of {image} does not start: {_first_line(error)}") from None
    try:
        yield server
    finally:
        container.stop()


def _ensure_image(image: str) -> None:
    """Pull the image unless it is there. Raises NoContainer where no engine answers, or has the image."""
    if not _engine_answers():
        raise NoContainer("no Docker engine answers")
    try:
        with contextlib.closing(docker.from_env(timeout=PULL_TIMEOUT_S)) as engine:
            try:
                engine.images.get(image)
            except docker.errors.ImageNotFound:
                engine.images.pull(image)
    except (docker.errors.DockerException, OSError) as error:
        raise NoContainer(f"a Docker engine answers, but cannot pull {image}: {_first_line(error)}") from None


@contextlib.contextmanager
def embedded_server() -> Iterator[EmbeddedPostgres]:
    """A throw-away embedded server."""
    with (
        tempfile.TemporaryDirectory(prefix="reproq-tests-", dir=shared_memory()) as name,
        EmbeddedPostgres(Path(name), settings={"fsync": "off"}) as server,
    ):
        yield server


def _engine_answers() -> bool:
    with warnings.catch_warnings():
        # Where no engine answers, docker leaves its socket to the garbage collector, which would then warn
        # in the middle of an innocent test.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with contextlib.closing(docker.from_env(timeout=ENGINE_TIMEOUT_S)) as engine:
                return bool(engine.ping())
        except (docker.errors.DockerException, OSError):
            return False
        finally:
            gc.collect()


def _first_line(error: Exception) -> str:
    text = getattr(error, "explanation", None) or str(error)  # docker wraps what the engine said
    return next(iter(text.splitlines()), type(error).__name__)
