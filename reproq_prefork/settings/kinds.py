"""The kinds of values that options hold: how each is read from text, and written back.

`parse` takes text that is not blank; the message of its ValueError is a sentence. `show` returns text that `parse`
reads as the same value. `join` makes one text from a list (a flag given twice, an array in a file), if the kind
has lists.
"""

from __future__ import annotations

import enum
import keyword
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reproq_prefork.model.limits import MAX_QUEUE_NAME_CHARS
from reproq_prefork.text.duration import format_duration, parse_duration
from reproq_prefork.text.printable import quoted
from reproq_prefork.text.redact import is_ambiguous

MAX_WORKER_ID_BYTES = 100
MAX_QUEUES = 100

_ON, _OFF = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIZE = re.compile(r"(?P<number>[0-9]{1,20})(?P<unit>[KMGT]?)", re.IGNORECASE)
_BYTES_IN = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_POSTGRESQL_URL = re.compile(r"postgres(?:ql)?://")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value. The help shows `metavar` in its place."""

    metavar: str
    parse: Callable[[str], object]
    show: Callable[[Any], str] = str
    join: Callable[[Sequence[str]], str] | None = None


def whole_number(minimum: int, maximum: int) -> Kind:
    def parse(text: str) -> int:
        digits = text.strip()
        wanted = f"give one from {minimum} to {maximum}"
        if not re.fullmatch(r"[+-]?[0-9]+", digits):
            raise ValueError(f"{quoted(text)} is not a whole number; {wanted}")
        # int() refuses thousands of digits with a message of its own. No limit here needs so many.
        if len(digits) > 20 or not minimum <= int(digits) <= maximum:
            raise ValueError(f"{quoted(text)} is out of range; {wanted}")
        return int(digits)

    return Kind("N", parse)


def duration(minimum_s: float, maximum_s: float, *, zero_means: str = "") -> Kind:
    def parse(text: str) -> float:
        seconds = parse_duration(text)
        if not minimum_s <= seconds <= maximum_s and not (zero_means and seconds == 0):
            zero = f", or 0 for {zero_means}" if zero_means else ""
            raise ValueError(
                f"{quoted(text)} is out of range; "
                f"give one from {format_duration(minimum_s)} to {format_duration(maximum_s)}{zero}"
            )
        return seconds

    return Kind("DURATION", parse, format_duration)


def size(minimum: int, maximum: int, *, zero_means: str = "") -> Kind:
    """A number of bytes: `512M`, `1G` (powers of 1024), or plain bytes."""

    def parse(text: str) -> int:
        written = _SIZE.fullmatch(text.strip())
        if not written:
            raise ValueError(f"{quoted(text)} is not a size; give one such as 512M, 1G, or plain bytes")
        number = int(written["number"]) * _BYTES_IN[written["unit"].upper()]
        if not minimum <= number <= maximum and not (zero_means and number == 0):
            zero = f", or 0 for {zero_means}" if zero_means else ""
            limits = f"from {_show_size(minimum)} to {_show_size(maximum)}"
            raise ValueError(f"{quoted(text)} is out of range; give one {limits}{zero}")
        return number

    return Kind("SIZE", parse, _show_size)


def _show_size(number: int) -> str:
    for unit, factor in reversed(_BYTES_IN.items()):
        if number and number % factor == 0:
            return f"{number // factor}{unit}"
    return str(number)


def choice(members: type[enum.Enum]) -> Kind:
    by_name = {member.name.lower(): member for member in members}

    def parse(text: str) -> enum.Enum:
        try:
            return by_name[text.strip().lower()]
        except KeyError:
            raise ValueError(f"{quoted(text)} is not one of {', '.join(by_name)}") from None

    return Kind("|".join(by_name), parse, lambda member: str(member.name.lower()))


def _parse_switch(text: str) -> bool:
    word = text.strip().lower()
    if word not in _ON + _OFF:
        raise ValueError(f"{quoted(text)} is neither true nor false")
    return word in _ON


def _parse_text(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{quoted(text)} holds characters that cannot be printed")
    return text.strip()


def _parse_path(text: str) -> Path:
    return Path(_parse_text(text))


def _parse_worker_id(text: str) -> str:
    worker_id = _parse_text(text)
    if len(worker_id.encode()) > MAX_WORKER_ID_BYTES:
        raise ValueError(f"{quoted(text)} is longer than {MAX_WORKER_ID_BYTES} bytes")
    return worker_id


def _parse_queue_names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(_parse_queue_name(name) for name in text.split(",")))
    if len(names) > MAX_QUEUES:
        raise ValueError(f"{len(names)} queues are too many; give at most {MAX_QUEUES}")
    return names


def _parse_queue_name(text: str) -> str:
    name = _parse_text(text)
    if not name:
        raise ValueError("a queue name in the list is empty")
    if len(name) > MAX_QUEUE_NAME_CHARS:
        raise ValueError(f"the queue name {quoted(name)} is longer than {MAX_QUEUE_NAME_CHARS} characters")
    return name


def _parse_task_env(text: str) -> tuple[str, ...] | None:
    names = [name.strip() for name in text.split(",")]
    if names == ["inherit"]:
        return None
    for name in names:
        if not _VARIABLE_NAME.fullmatch(name):
            raise ValueError(f"{quoted(name)} is not the name of a variable; give `inherit`, or NAME,NAME,…")
    return tuple(dict.fromkeys(names))


def _parse_module(text: str) -> str:
    module = text.strip()
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in module.split(".")):
        raise ValueError(f"{quoted(text)} is not a dotted module path, such as myapp.executor")
    return module


def _parse_modules(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_parse_module(name) for name in text.split(",")))


def _parse_command(text: str) -> tuple[str, ...]:
    if "\0" in text:
        raise ValueError(f"{quoted(text)} holds a NUL character, which an argument cannot hold")
    try:
        words = tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"{quoted(text)} cannot be split as a shell would: {error}") from None
    if not words or not words[0]:
        raise ValueError(f"{quoted(text)} does not name a program")
    return words


def _parse_database_url(text: str) -> str:
    # Never quoted in an error: a wrong address may hold the right password.
    url = text.strip()
    if not url.isprintable():
        raise ValueError("the address holds characters that cannot be printed; percent-encode them")
    if not _POSTGRESQL_URL.match(url) and ("=" not in url or "://" in url.partition("=")[0]):
        raise ValueError("this is not a PostgreSQL address; give one such as postgresql://app@localhost/app")
    if is_ambiguous(url):
        raise ValueError(
            "nobody can tell where the password in this address ends; percent-encode every @ : / ? # [ ] in its "
            "parts (@ is %40, / is %2F)"
        )
    return url


SWITCH = Kind("", _parse_switch, lambda on: "true" if on else "false")
TEXT = Kind("TEXT", _parse_text)
PATH = Kind("PATH", _parse_path)
WORKER_ID = Kind("NAME", _parse_worker_id)
QUEUE_NAMES = Kind("NAME", _parse_queue_names, ",".join, ",".join)
TASK_ENV = Kind("inherit|NAME,…", _parse_task_env, lambda names: ",".join(names or ["inherit"]), ",".join)
MODULE = Kind("MODULE", _parse_module)
MODULES = Kind("MODULE", _parse_modules, ",".join, ",".join)
COMMAND = Kind("COMMAND", _parse_command, shlex.join, shlex.join)
DATABASE_URL = Kind("URL", _parse_database_url)
