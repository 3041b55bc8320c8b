"""The versions of the driver."""

from __future__ import annotations

import psycopg
from psycopg import pq


def driver_versions() -> tuple[str, str]:
    """Of psycopg, with its implementation, and of the libpq that it uses."""
    major, minor = divmod(pq.version(), 10_000)
    return f"{psycopg.__version__} ({pq.__impl__})", f"{major}.{minor}"
