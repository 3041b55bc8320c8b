"""Addresses that take a connection and never say a word, as a stopped server's or a firewall's."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def deaf_ports(count: int) -> Iterator[list[int]]:
    """So many ports of 127.0.0.1: the kernel takes connections there, and nobody reads from them."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        yield [int(listener.getsockname()[1]) for listener in listeners]
