"""How runs of a storm are cancelled, and the log of it: `run_id sent_at at answer`, a line a cancel.

`answer` is the run's status as it was told, UNKNOWN where the connection broke before it came, and MISSING where
there is no such run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psycopg

from reproq_prefork import cancel
from reproq_prefork.errors import RunNotFound
from tests.chaos.clock import boottime

UNKNOWN, MISSING = "UNKNOWN", "MISSING"


class CancelLog:
    def __init__(self, path: Path) -> None:
        self._log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def cancel(self, connection: psycopg.Connection[Any], run_id: int) -> bool:
        """Cancel it, by the function. False: nobody knows whether it was."""
        sent_at = boottime()
        try:
            answer: str = cancel(connection, run_id).status
        except RunNotFound:
            answer = MISSING
        except psycopg.Error:
            answer = UNKNOWN
        self.note(run_id, sent_at, answer)
        return answer != UNKNOWN

    def note(self, run_id: int, sent_at: float, answer: str) -> None:
        os.write(self._log, f"{run_id} {sent_at:.6f} {boottime():.6f} {answer}\n".encode())
