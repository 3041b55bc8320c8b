"""The operator of a storm: cancels runs that wait or run, by the function and by the command.

    python -m tests.chaos.canceller URL DIRECT_URL LOG SEED

It takes what is to be cancelled and was not yet, or whatever it finds. When it is told to stop, it first cancels
all that is to be cancelled: nobody else would, and it would run for long.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

from tests.chaos.cancelling import UNKNOWN, CancelLog
from tests.chaos.clock import boottime

INTERVAL_S = 0.7
COMMANDS_SHARE = 0.15  # each takes a new interpreter
COMMAND_TIMEOUT_S = 30.0
ANY_SHARE = 0.5
LAST_ROUNDS = 30
ANSWER = re.compile(r"run \d+ (?:is|has already finished and is) ([A-Z]+)", re.IGNORECASE)

TO_BE_CANCELLED = (
    "select id from task_runs where status in ('PENDING', 'RUNNING') and cancel_requested_at is null"
    " and (task_path like '%patient' or payload ->> 'doing' = 'patient') order by id limit 1"
)
ANY = "select id from (select id from task_runs where status = %s limit 50) as live order by random() limit 1"

Connection = psycopg.Connection[Any]


def main(url: str, direct_url: str, log_path: Path, seed: int) -> None:
    told_to_stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda signum, _frame: told_to_stop.append(signum))
    dice = random.Random(seed)
    log = CancelLog(log_path)
    rounds_left = LAST_ROUNDS
    while rounds_left > 0:
        with (
            contextlib.suppress(psycopg.Error),
            psycopg.connect(url, autocommit=True) as connection,
            psycopg.connect(direct_url, autocommit=True) as direct,
        ):
            while rounds_left > 0 and not connection.broken:
                run_id = _next(direct, dice, only_these=bool(told_to_stop))
                if run_id is not None and dice.random() < COMMANDS_SHARE:
                    _by_command(url, run_id, log)
                elif run_id is not None:
                    log.cancel(connection, run_id)
                if told_to_stop:
                    rounds_left = 0 if run_id is None else rounds_left - 1
                else:
                    time.sleep(dice.expovariate(1 / INTERVAL_S))
        if told_to_stop:
            rounds_left -= 1


def _next(direct: Connection, dice: random.Random, *, only_these: bool) -> int | None:
    row = None
    if only_these or dice.random() >= ANY_SHARE:
        row = direct.execute(TO_BE_CANCELLED).fetchone()
    if row is None and not only_these:
        row = direct.execute(ANY, [dice.choice(("PENDING", "RUNNING"))]).fetchone()
    return None if row is None else int(row[0])


def _by_command(url: str, run_id: int, log: CancelLog) -> None:
    sent_at = boottime()
    done = subprocess.run(
        [sys.executable, "-m", "reproq_prefork", "cancel", str(run_id)],
        env={**os.environ, "DATABASE_URL": url, "REPROQ_ENV_FILE": ""},
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    said = ANSWER.search(done.stdout + done.stderr)
    log.note(run_id, sent_at, UNKNOWN if said is None else said[1])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
