"""The start and the end of the program: it gets the arguments, and returns an exit status to the shell."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import click

from reproq_prefork.cli.invocation import Invocation
from reproq_prefork.cli.printing import PROGRAM, broken_output, complain, note
from reproq_prefork.cli.program import program
from reproq_prefork.errors import ExitStatus, ReproqError
from reproq_prefork.text.redact import mask_addresses

SIGNAL_EXIT_BASE = 128  # a shell adds it to the number of the signal that ended a program


def main() -> NoReturn:
    """The program. Ends the process with an exit status."""
    status = run(sys.argv[1:], os.environ)
    # Before it ends, the interpreter collects all garbage. That takes a fifth of the time of a short command.
    gc.freeze()
    sys.exit(status)


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Do what `arguments` say. Returns the exit status. An unexpected exception passes through.

    If nobody reads the output any more, click ends the process with status 1 and no message.
    """
    try:
        status = program.main(
            args=list(arguments),
            prog_name=PROGRAM,
            standalone_mode=False,
            obj=Invocation.of_this_process(environ),
        )
    except ReproqError as error:
        complain(str(error))
        return error.exit_status
    except click.UsageError as error:
        complain(mask_addresses(error.format_message()))
        if error.ctx is not None:
            note(f"Try `{error.ctx.command_path} --help`.")
        return ExitStatus.USAGE
    except click.ClickException as error:
        complain(mask_addresses(error.format_message()))
        return ExitStatus.FAILURE
    except (click.Abort, KeyboardInterrupt):
        return SIGNAL_EXIT_BASE + signal.SIGINT
    except OSError as error:
        reason = broken_output(error)
        if reason is None:
            raise
        complain(f"Standard output cannot be written: {reason}.")
        return ExitStatus.FAILURE
    return int(status or ExitStatus.OK)
