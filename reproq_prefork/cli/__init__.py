"""The command line: argv and the environment become settings, and settings one action.

The only part that reads either. `main` is the program; `entry` turns errors into exit statuses, `program`
is what runs without a command, and each command is a module of its name.
"""

from reproq_prefork.cli.entry import main

__all__ = ["main"]
