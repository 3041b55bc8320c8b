"""Checks before a start and a reload that the program of tasks exists. Later, workers hand runs back without it.

A check can only find what is wrong before the program does its own work: a script that an interpreter is to run,
as in `node greet.js`, is found by the first task.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from reproq_prefork.errors import SettingsError
from reproq_prefork.settings import Settings

SHARE_OF_BOOT_TIMEOUT = 0.9  # so that the sentence comes before the signal that ends the whole check
MAX_SHEBANG_BYTES = 256  # of Linux
MAX_REASON_CHARS = 500

_ANSWER = "\nreproq-prefork:"
# What `python -m` does first. Like that, it imports the packages around the module, but not the module itself.
_FIND = """
import difflib, importlib.util, json, os, pkgutil, sys
name, answer = sys.argv[1:]
def wrong():
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            if importlib.util.find_spec(name + ".__main__") is None:
                return "it is a package without a module __main__, so it cannot be run"
    except ImportError as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:
        return f"a package around it cannot be imported: {type(error).__name__}: {error}"
    if spec is not None:
        return None
    names = [each.name for each in pkgutil.iter_modules(["."])]
    close = difflib.get_close_matches(name, names, n=1) if "." not in name else []
    return "there is no such module" + (f"; did you mean {close[0]}?" if close else "")
said = wrong()
sys.stdout.flush()
os.write(1, (answer + json.dumps(said)).encode())
"""


def check_program(settings: Settings) -> None:
    """Raises SettingsError if the program of tasks does not exist. No program: nothing to check."""
    if not settings.executor_argv:
        return
    reason = _why_not_a_program(settings)
    if reason is not None:
        raise SettingsError(
            [f"The executor {settings.executor_argv[0]} is not a program that can be run: {reason}."]
        )
    if settings.command is None and settings.executor_module is not None:
        reason = _why_not_a_module(settings, settings.executor_module)
        if reason is not None:
            raise SettingsError(
                [
                    f"--executor-module {settings.executor_module}: {settings.python_path} cannot run it in "
                    f"{settings.chdir}: {reason}"
                ]
            )


def _why_not_a_program(settings: Settings) -> str | None:
    program = settings.executor_argv[0]
    if os.sep in program:
        path = settings.chdir / program
        found = path if os.access(path, os.X_OK) and path.is_file() else None
    else:
        which = shutil.which(program, path=settings.task_environ.get("PATH", os.defpath))
        found = None if which is None else Path(which)
    if found is None:
        return "not found, or not executable"
    return _why_no_interpreter(found, settings.chdir)


def _why_no_interpreter(path: Path, directory: Path) -> str | None:
    try:
        with path.open("rb") as file:
            first_line = file.read(MAX_SHEBANG_BYTES).partition(b"\n")[0]
    except OSError:
        return None  # it may be executable and not readable
    words = first_line[2:].split() if first_line.startswith(b"#!") else []
    if not words:
        return None
    interpreter = os.fsdecode(words[0])
    if os.access(directory / interpreter, os.X_OK):
        return None
    return f"its first line names the interpreter {interpreter}, which is not found, or not executable"


def _why_not_a_module(settings: Settings, module: str) -> str | None:
    try:
        done = subprocess.run(
            [settings.python_path, "-c", _FIND, module, _ANSWER],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=settings.chdir,
            env=settings.task_environ,
            timeout=settings.boot_timeout_s * SHARE_OF_BOOT_TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        return f"it was not found within {error.timeout:g} s (--boot-timeout)."
    except OSError as error:
        return f"{error.strerror}."
    _, answered, answer = done.stdout.decode(errors="replace").rpartition(_ANSWER)
    if answered:
        reason: str | None = json.loads(answer)
        if reason is None:
            return None
        reason = reason[:MAX_REASON_CHARS]
        return reason if reason.endswith("?") else f"{reason.rstrip('.')}."
    if done.returncode == 0:
        return None  # whatever it is, it is not an interpreter that we can ask
    last_line = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    return f"it ends with exit status {done.returncode}: {last_line[:MAX_REASON_CHARS]}"
