"""systemd's notify protocol (sd_notify(3)): sends datagrams to the socket that systemd names, if it names one."""

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
        self._alive_at = (
            -math.inf
        )  # no sign yet; not 0, because the clock may have started less than an interval ago

    def tell(self, state: str) -> None:
        """Send `READY=1`, `STOPPING=1`, ... If the service manager does not listen, work goes on."""
        if self._address is None:
            return
        if state.startswith("RELOADING"):
            # systemd accepts a reload as begun only together with its time.
            state = f"{state}\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.setblocking(False)
            end.sendto(state.encode(), address)

    def show_life(self) -> None:
        """Answer the watchdog, twice as often as it wants."""
        if self._watchdog_s is None:
            return
        now = time.monotonic()
        if now - self._alive_at >= self._watchdog_s / 2:
            self._alive_at = now
            self.tell("WATCHDOG=1")
