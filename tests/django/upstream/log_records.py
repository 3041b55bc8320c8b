"""What the workers log of tasks, logged again by the process that tests them: from there assertLogs sees it."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

FILE_VARIABLE = "UPSTREAM_LOG_RECORDS"  # names the file, for both sides
LOGGERS = ("django.tasks", "django_tasks")


class AsJson(logging.Formatter):
    """One record a line; its message has the traceback, as it has for whoever reads a log."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps([record.name, record.levelno, super().format(record)])


def log_again() -> None:
    """Log what the workers have logged since the last time. They append, and are idle now."""
    file = Path(os.environ[FILE_VARIABLE])
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    os.truncate(file, 0)
    for name, level, message in records:
        logging.getLogger(name).log(level, "%s", message)
