"""A link to the server that a test can cut, slow down, make deaf, or break at a chosen statement.

It knows as much of PostgreSQL's protocol as it needs to count statements: each message of a client has a type and
a length, and a statement ends with `Sync` or is a simple `Query`. The link is not encrypted.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import psutil

START_TIMEOUT_S = 10.0
CHUNK_BYTES = 65536
SSL_REQUEST, GSSENC_REQUEST, PROTOCOL_3 = 80877103, 80877104, 196608
END_OF_STATEMENT = frozenset(b"SQ")  # Sync, Query
READY_FOR_QUERY, COPY_IN = b"ZG"


class Break(enum.Enum):
    """What becomes of a statement."""

    BEFORE = "the connection breaks before the server has it"
    AFTER = "the server has committed it, and the connection breaks before its reply arrives"
    KILL = "the server gets it, and its sender is killed at once"


class Proxy:
    """Listens on a port of its own, and passes what comes on to the server of `server_url`.

    Every switch may be set from another thread, and concerns the connections that there are and those to come.
    """

    def __init__(self, server_url: str, *, host: str = "127.0.0.1") -> None:
        """`host` is the address that it listens on."""
        self._host = host
        self.delay_s = 0.0  # of each piece, in both directions
        self.deaf = False  # what the server says is held back, and comes late if this ends
        self.silent = False  # so is what the clients say
        self.statements = 0  # that have come so far
        self._break_at: int | None = None
        self._break = Break.BEFORE
        self._broken = threading.Event()
        target = urlsplit(server_url)
        self._server = _place(server_url)
        self._loop = asyncio.new_event_loop()
        self._links: set[_Link] = set()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.port = 0
        self._url = target

    @property
    def url(self) -> str:
        """The server's, by way of this."""
        user = self._url.netloc.rpartition("@")[0]
        place = f"{self._host}:{self.port}"
        return self._url._replace(netloc=f"{user}@{place}" if user else place).geturl()

    @property
    def connections(self) -> int:
        return len(self._links)

    def break_statement(self, number: int, how: Break) -> None:
        """Break the `number`th statement from now on; 1 is the next."""
        self._broken.clear()
        self._break = how
        self._break_at = self.statements + number

    @property
    def has_broken(self) -> bool:
        """The statement that was to be broken has come."""
        return self._broken.is_set()

    def lead_to(self, server_url: str) -> None:
        """Connections that come from now on go to another server, as where a name of the DNS is moved."""
        self._server = _place(server_url)

    def reset(self) -> None:
        """End every connection by RST, as a firewall does that has forgotten them."""
        self._do(self._reset())

    def __enter__(self) -> Proxy:
        self._thread.start()
        if not self._listening.wait(START_TIMEOUT_S):
            raise AssertionError("the proxy does not listen")
        return self

    def __exit__(self, *_error: object) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_TIMEOUT_S)

    def _do(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(START_TIMEOUT_S)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._listener = self._loop.run_until_complete(asyncio.start_server(self._accept, self._host, 0))
        self.port = self._listener.sockets[0].getsockname()[1]
        self._listening.set()
        self._loop.run_forever()
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            to_server = await asyncio.open_connection(*self._server)
        except OSError:
            writer.close()
            return
        link = _Link(self, (reader, writer), to_server)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    async def _reset(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _close(self) -> None:
        self._listener.close()
        for link in list(self._links):
            link.end()
        # What the links still have to do, they do now: the loop is about to stop.
        while self._links:
            await asyncio.sleep(0.01)

    def fate(self) -> Break | None:
        """Of the statement that comes now; for a link."""
        self.statements += 1
        if self.statements != self._break_at:
            return None
        self._broken.set()
        return self._break


def _place(server_url: str) -> tuple[str, int]:
    target = urlsplit(server_url)
    return target.hostname or "127.0.0.1", target.port or 5432


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(self, proxy: Proxy, client: Streams, server: Streams) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._swallows = False  # what the server says no longer reaches the client
        self._ended = asyncio.Event()

    async def run(self) -> None:
        pumps = [asyncio.create_task(self._client_to_server()), asyncio.create_task(self._server_to_client())]
        ended = asyncio.create_task(self._ended.wait())
        await asyncio.wait((*pumps, ended), return_when=asyncio.FIRST_COMPLETED)
        for task in (*pumps, ended):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
                await task
        for writer in (self._to_client, self._to_server):
            writer.close()

    def end(self) -> None:
        self._ended.set()

    def reset(self) -> None:
        for writer in (self._to_client, self._to_server):
            opened = writer.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.end()

    async def _client_to_server(self) -> None:
        await self._greeting()
        while True:
            kind = await self._from_client.readexactly(1)
            length = await self._from_client.readexactly(4)
            body = await self._from_client.readexactly(int.from_bytes(length) - 4)
            message = kind + length + body
            if kind[0] in END_OF_STATEMENT and (how := self._proxy.fate()) is not None:
                await self._break(how, message)
                return
            await self._pass_on(message)

    async def _greeting(self) -> None:
        """What comes before the first message with a type; encryption is declined."""
        while True:
            length = await self._from_client.readexactly(4)
            body = await self._from_client.readexactly(int.from_bytes(length) - 4)
            code = int.from_bytes(body[:4])
            if code in (SSL_REQUEST, GSSENC_REQUEST):
                self._to_client.write(b"N")
                continue
            await self._pass_on(length + body)
            if code == PROTOCOL_3:
                return

    async def _pass_on(self, message: bytes) -> None:
        await self._hold(lambda: self._proxy.silent)
        self._to_server.write(message)
        await self._to_server.drain()

    async def _server_to_client(self) -> None:
        while data := await self._from_server.read(CHUNK_BYTES):
            await self._hold(lambda: self._proxy.deaf)
            if self._swallows:
                if _ends_an_answer(data):
                    return
                continue
            self._to_client.write(data)
            await self._to_client.drain()

    async def _hold(self, is_held: Callable[[], bool]) -> None:
        if self._proxy.delay_s:
            await asyncio.sleep(self._proxy.delay_s)
        while is_held():
            await asyncio.sleep(0.01)

    async def _break(self, how: Break, message: bytes) -> None:
        if how is Break.BEFORE:
            return
        sender = self._sender() if how is Break.KILL else None
        self._swallows = True
        await self._pass_on(message)
        if sender is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(sender, signal.SIGKILL)
        await self._ended.wait()  # until the other direction has seen the server's answer

    def _sender(self) -> int | None:
        """The process at the client's end."""
        port = self._to_client.get_extra_info("peername")[1]
        return next(
            (each.pid for each in psutil.net_connections("tcp4") if each.laddr and each.laddr.port == port),
            None,
        )


def _ends_an_answer(data: bytes) -> bool:
    """Whether a piece ends with what ends an answer (its type, its length, one byte), or asks for rows to copy."""
    is_ready = len(data) >= 6 and data[-6] == READY_FOR_QUERY and int.from_bytes(data[-5:-1]) == 5
    return is_ready or data[0] == COPY_IN
