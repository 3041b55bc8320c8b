"""The command line: argv and the environment become settings, and settings become one action.

No other folder reads argv or the environment. `main` is the program. `entry` turns errors into exit statuses.
`program` is what happens without a command. `commands` has one module per command. May import every folder.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from reproq_prefork.errors import ExitStatus

__all__ = ["main"]


def main() -> NoReturn:
    """The program. Ends the process with an exit status."""
    try:
        from reproq_prefork.cli import entry
    except ImportError as error:
        if "psycopg" not in str(error):
            raise
        sys.exit(_without_driver(error))
    entry.main()


def _without_driver(error: ImportError) -> int:
    """For the error that psycopg raises at import if there is no libpq. Every command imports it."""
    reason = str(error).strip().splitlines()[0].rstrip(".")
    print(
        f"reproq-prefork: psycopg, the driver of PostgreSQL, cannot be used ({reason}). Install it with a libpq "
        "of its own: pip install 'reproq-prefork[binary]'; or install libpq on this system (Debian: libpq5).",
        file=sys.stderr,
    )
    return ExitStatus.FAILURE
