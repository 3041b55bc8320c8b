"""The command line: argv and the environment become settings, and settings one action.

The only folder that reads either. `main` is the program, `entry` turns errors into exit statuses, `program` is
what runs without a command, and `commands` has a module a command. May import every folder.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from reproq_prefork.errors import ExitStatus

__all__ = ["main"]


def main() -> NoReturn:
    """The program; ends the process with an exit status."""
    try:
        from reproq_prefork.cli import entry
    except ImportError as error:
        if "psycopg" not in str(error):
            raise
        sys.exit(_without_driver(error))
    entry.main()


def _without_driver(error: ImportError) -> int:
    """psycopg finds out as it is imported that there is no libpq, and every command imports it."""
    reason = str(error).strip().splitlines()[0].rstrip(".")
    print(
        f"reproq-prefork: psycopg, the driver of PostgreSQL, cannot be used ({reason}). Install it with a libpq "
        "of its own: pip install 'reproq-prefork[binary]'; or install libpq on this system (Debian: libpq5).",
        file=sys.stderr,
    )
    return ExitStatus.FAILURE
