"""The one clock of a storm's logs; it goes on while the machine sleeps."""

from __future__ import annotations

import time


def boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
