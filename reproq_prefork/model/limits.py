"""The limits of a run, and of what a task may return. The CHECKs of the table have the same limits."""

from __future__ import annotations

DAY_S = 86_400.0

MIN_PRIORITY, MAX_PRIORITY = -100, 100
MAX_ATTEMPTS = 1000
MAX_DELAY_S = 100 * 365 * DAY_S
MAX_TIMEOUT_S = 365 * DAY_S
SHORTEST_S = 1e-6  # the server stores seconds in four bytes, and refuses a number that is too small for them
MAX_QUEUE_NAME_CHARS = 128
MAX_UNIQUE_KEY_BYTES = 1024  # an index entry holds about 2,700

MAX_PAYLOAD_BYTES = 1024 * 1024
# Linux refuses a single argument of more than 128 KiB (MAX_ARG_STRLEN, its final NUL included).
MAX_ARGV_PAYLOAD_BYTES = 120 * 1024
MAX_RESULT_BYTES = 1024 * 1024
MAX_STDERR_TAIL_BYTES = 64 * 1024
