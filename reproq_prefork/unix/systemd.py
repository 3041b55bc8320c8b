"""systemd's notify protocol (sd_notify(3)): datagrams to the socket that it names; without one, nothing."""

from __future__ import annotations

import contextlib
import math
import socket
import time


class Notifier:
    """`address`: the value of NOTIFY_SOCKET, or None. `watchdog_s`: how often systemd wants a sign of life."""

    def __init__(self, address: str | None, *, watchdog_s: float | None = None) -> None:
        self._address = address
        self._watchdog_s = watchdog_s
        self._alive_at = -math.inf  # no sign yet; the clock may be younger than the watchdog is patient

    def tell(self, state: str) -> None:
        """`READY=1`, `STOPPING=1`, ... A service manager that does not listen is no reason to stop work."""
        if self._address is None:
            return
        if state.startswith("RELOADING"):
            # systemd takes a reload as begun only with the time at which it was.
            state = f"{state}\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.setblocking(False)
            end.sendto(state.encode(), address)

    def show_life(self) -> None:
        """Answer the watchdog, at twice the pace that it wants."""
        if self._watchdog_s is None:
            return
        now = time.monotonic()
        if now - self._alive_at >= self._watchdog_s / 2:
            self._alive_at = now
            self.tell("WATCHDOG=1")
