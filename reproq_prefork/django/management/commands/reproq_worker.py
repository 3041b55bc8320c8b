"""`manage.py reproq_worker`: `reproq-prefork` with this project's settings, in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from django.conf import ENVIRONMENT_VARIABLE
from django.core.management.base import BaseCommand, CommandError, CommandParser


class Command(BaseCommand):
    help = "Run tasks. Takes every option of `reproq-prefork`, and replaces this process with it."

    def run_from_argv(self, argv: list[str]) -> NoReturn:
        parser = CommandParser(prog=f"{argv[0]} {argv[1]}", add_help=False, allow_abbrev=False)
        parser.add_argument("--settings")
        parser.add_argument("--pythonpath")
        # Django has already applied these two.
        options, passed_on = parser.parse_known_args(argv[2:])
        become_worker(passed_on, options.pythonpath, argv[0])

    def print_help(self, prog_name: str, subcommand: str) -> NoReturn:
        become_worker(["--help"], None, prog_name)

    def handle(self, *args: Any, **options: Any) -> None:
        raise CommandError(
            "A worker takes the place of the process that starts it: run `manage.py reproq_worker`, or "
            "`python -m reproq_prefork --django SETTINGS_MODULE`."
        )


def become_worker(arguments: Sequence[str], pythonpath: str | None, program: str) -> NoReturn:
    """Replace this process with the program, which can import the same modules.

    A supervisor keeps the pid that it started, and gets its exit status.
    """
    # The program has the current directory first on its path. This process had the directory of manage.py there.
    # (`django-admin` and `python -m django` do not belong to a project: they had the current directory there too.)
    in_no_project = Path(program).name.startswith(("django-admin", "__main__"))
    directory = None if in_no_project else str(Path(program).absolute().parent)
    paths = [path for path in (pythonpath and os.path.abspath(pythonpath), directory) if path]
    earlier = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *([earlier] if earlier else [])])
    module = os.environ[ENVIRONMENT_VARIABLE]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "reproq_prefork", "--django", module, *arguments])
