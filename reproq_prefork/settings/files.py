"""Reads `.env` and `reproq.toml`. This is the only place where settings read the disk."""

from __future__ import annotations

import difflib
import io
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from reproq_prefork.settings.options import DEFAULT_CONFIG_FILE, DEFAULT_ENV_FILE, OPTIONS, Option
from reproq_prefork.settings.sources import FlagValue, Given, Sources, find
from reproq_prefork.text.printable import quoted

MAX_FILE_BYTES = 1024 * 1024
MAX_PATH_CHARS = 4096  # the limit of Linux: a shortened path would not help the reader

_LOCATING = {option.name: option for option in OPTIONS if option.locates_files}
_BY_TOML_KEY = {option.toml_key: option for option in OPTIONS if option.toml_key is not None}
# What somebody may write by mistake instead of a key, and the key that was meant.
_BY_VARIABLE = {name: key for key, option in _BY_TOML_KEY.items() for name in option.variables}
_BY_NAME = {name: key for key, option in _BY_TOML_KEY.items() for name in (key, option.name)}


def read_sources(flags: Mapping[str, FlagValue], environ: Mapping[str, str], *, cwd: Path) -> Sources:
    """Everything that is written about settings. It never raises: what cannot be read is in `problems`.

    `flags` maps option names to the values on the command line. Each call reads the files again, and changes
    nothing in the environment of this process: a reload calls this again.
    """
    located = {name: find(option, Sources(flags, environ, cwd)) for name, option in _LOCATING.items()}
    chdir_given = located["chdir"]
    # abspath, not resolve: each reload must follow a symbolic link to the current release.
    chdir = Path(os.path.abspath(cwd / chdir_given.text.strip())) if chdir_given else cwd
    if not chdir.is_dir():
        subject = chdir_given.where if chdir_given else "the current directory"
        return Sources(
            flags,
            environ,
            chdir,
            problems=(f"{subject}: {quoted(str(chdir), MAX_PATH_CHARS)} is not a directory",),
        )
    env_file = _read_env_file(chdir, located["env_file"])
    config_file = _read_config_file(chdir, located["config"])
    return Sources(
        flags,
        environ,
        chdir,
        env_file.path,
        env_file.values,
        config_file.path,
        config_file.values,
        env_file.problems + config_file.problems,
        env_file.warnings,
    )


@dataclass(frozen=True, slots=True)
class _File:
    """The content of one file; `path` is None if there is no such file."""

    path: Path | None
    values: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def _read_env_file(chdir: Path, named_by: Given | None) -> _File:
    path = Path(named_by.text.strip() if named_by else DEFAULT_ENV_FILE)
    try:
        text, mode = _read(chdir / path, named_by)
        values = parse_env_file(text)
    except FileNotFoundError:
        return _File(None)
    except ValueError as error:
        return _File(path, problems=(f"{named_by.where if named_by else path}: {error}",))
    warnings = [
        f"{path}: {option.env} has no effect there, since it names that file or its place; "
        f"set it in the environment, or give {option.long_flag}"
        for option in _LOCATING.values()
        if option.env in values
    ]
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        warnings.append(
            f"{path} can be read by other users (mode {stat.S_IMODE(mode):04o}), and may hold passwords: "
            f"run `chmod 600 {path}`"
        )
    return _File(path, values, warnings=tuple(warnings))


def _read_config_file(chdir: Path, named_by: Given | None) -> _File:
    path = Path(named_by.text.strip() if named_by else DEFAULT_CONFIG_FILE)
    try:
        text, _ = _read(chdir / path, named_by)
    except FileNotFoundError:
        return _File(None)
    except ValueError as error:
        return _File(path, problems=(f"{named_by.where if named_by else path}: {error}",))
    values, problems = parse_config_file(text)
    return _File(path, values, problems=tuple(f"{path}: {problem}" for problem in problems))


def _read(path: Path, named_by: Given | None) -> tuple[str, int]:
    """The text of a file, and its mode. Raises FileNotFoundError only if the user did not name the file."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and named_by is None:
            raise
        raise ValueError(f"{quoted(str(path), MAX_PATH_CHARS)} cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{quoted(str(path), MAX_PATH_CHARS)} is larger than {MAX_FILE_BYTES} bytes")
    try:
        return content.decode("utf-8-sig"), mode
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{quoted(str(path), MAX_PATH_CHARS)} is not UTF-8 text (byte {error.start})"
        ) from None


def parse_env_file(text: str) -> dict[str, str]:
    """The variables of a `.env` file, by python-dotenv's rules. The message of its ValueError is a sentence.

    Values are literal: `${NAME}` is not replaced, so that a password may hold a `$`, and so that nothing is read
    from the environment of this process. A line without `=` sets nothing.
    """
    if "\0" in text:
        raise ValueError("the file holds a NUL character, which a variable cannot hold")
    for binding in parse_stream(io.StringIO(text)):
        # python-dotenv itself only logs such a line and skips it. The line is not quoted here: it may hold a
        # password.
        if binding.error or "=" in (binding.key or ""):
            raise ValueError(f"line {binding.original.line} is not of the form NAME=value")
    values = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {name: value for name, value in values.items() if value is not None}


def parse_config_file(text: str) -> tuple[dict[str, str], list[str]]:
    """The settings of a `reproq.toml` as text by key, and a sentence for each mistake in it."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        return {}, [f"this is not valid TOML: {error}"]
    values: dict[str, str] = {}
    problems: list[str] = []
    for key, value in document.items():
        option = _BY_TOML_KEY.get(key)
        if option is None:
            problems.append(_unknown_key(key, value))
            continue
        try:
            values[key] = _toml_text(option, value)
        except ValueError as error:
            problems.append(f"{key}: {error}")
    return values, problems


def _unknown_key(key: str, value: object) -> str:
    locating = _LOCATING.get(key)
    if locating is not None:
        return (
            f'"{key}" cannot be set there, since it names that file or its place; '
            f"give {locating.long_flag}, or set {locating.env} in the environment"
        )
    if isinstance(value, dict):
        return f"unknown table {quoted(key)}; all keys are at the top level, not in a table"
    close = difflib.get_close_matches(key.lower().replace("-", "_"), _BY_NAME, n=1)
    meant = _BY_VARIABLE.get(key.upper()) or (_BY_NAME[close[0]] if close else None)
    hint = f'did you mean "{meant}"?' if meant else "`reproq-prefork config` shows all keys"
    return f"unknown key {quoted(key)}; {hint}"


def _toml_text(option: Option, value: object) -> str:
    """The text that means in a variable what `value` means in TOML. An empty list is unset, as empty text is."""
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return str(value)
        case list() if option.kind.join is not None and all(isinstance(item, str) for item in value):
            return option.kind.join(value) if value else ""
    allowed = "text or a list of texts" if option.kind.join else "text, a number, true or false"
    raise ValueError(f"the value is of the wrong type; give {allowed}")
