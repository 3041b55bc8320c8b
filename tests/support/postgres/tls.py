"""TLS to any server: a proxy on this host ends it, with a certificate of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

START_TIMEOUT_S = 10.0
CHUNK_BYTES = 65536
SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")


@dataclass(frozen=True)
class Certificate:
    """A self-signed one for 127.0.0.1: the authority and the server in one file."""

    certificate: Path
    key: Path


def self_signed(directory: Path, name: str = "server") -> Certificate:
    made = Certificate(directory / f"{name}.crt", directory / f"{name}.key")
    kind = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    name_of_host = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-out", str(made.certificate), "-keyout", str(made.key)]
    subprocess.run(["openssl", "req", *kind, *name_of_host, *files], check=True, capture_output=True)
    return made


@contextlib.contextmanager
def encrypted(server_url: str, own: Certificate, trusted: Certificate) -> Iterator[str]:
    """The URL of the server by way of TLS: it shows `own`, and the URL names `trusted` as the one to be believed.

    A client that does not ask for TLS is refused.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    target = urlsplit(server_url)
    loop = asyncio.new_event_loop()
    ready, ports = threading.Event(), [0]

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if await reader.readexactly(len(SSL_REQUEST)) != SSL_REQUEST:
                return writer.close()
            writer.write(b"S")
            await writer.start_tls(context)
            to_server = await asyncio.open_connection(target.hostname, target.port)
            await asyncio.gather(_pass_on(reader, to_server[1]), _pass_on(to_server[0], writer))
        return writer.close()

    async def serve() -> None:
        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            ports[0] = server.sockets[0].getsockname()[1]
            ready.set()
            with contextlib.suppress(asyncio.CancelledError):
                await server.serve_forever()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    task = loop.create_task(serve())
    thread = threading.Thread(target=loop.run_until_complete, args=(task,), daemon=True)
    thread.start()
    try:
        assert ready.wait(START_TIMEOUT_S), "the proxy does not listen"
        user = target.netloc.rpartition("@")[0]
        yield target._replace(
            netloc=f"{user}@127.0.0.1:{ports[0]}" if user else f"127.0.0.1:{ports[0]}",
            query=f"sslmode=verify-full&sslrootcert={quote(str(trusted.certificate))}",
        ).geturl()
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(START_TIMEOUT_S)
        loop.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side has ended; then the other is closed, as a server or a client that ends does."""
    with contextlib.suppress(OSError):
        while piece := await reader.read(CHUNK_BYTES):
            writer.write(piece)
            await writer.drain()
    writer.close()
