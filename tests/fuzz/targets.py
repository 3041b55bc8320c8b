"""What must hold of each parser that takes bytes from elsewhere, whatever it is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import psycopg
from hypothesis import strategies as st

from reproq_prefork.executors.program_output import MAX_MESSAGE_CHARS, MAX_TRACEBACK_CHARS, Output, outcome_of
from reproq_prefork.executors.report_json import dump_report, load_report
from reproq_prefork.executors.tail import Tail
from reproq_prefork.model.limits import MAX_RESULT_BYTES
from reproq_prefork.model.outcome import Failure, Success
from reproq_prefork.settings.files import parse_config_file, parse_env_file
from reproq_prefork.settings.resolve import describe, resolve
from reproq_prefork.settings.sources import Sources
from reproq_prefork.spec.canonical import canonical_json
from reproq_prefork.spec.parse import parse_json
from reproq_prefork.spec.rules import SpecError
from reproq_prefork.text.redact import mask_url

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "xyzzy"

UGLY = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b":",
        b",",
        b"\\",
        b"\n",
        b"\r\n",
        b" ",
        b"\t",
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
    ),
    *(b"1e999", b"-0.0", b"1e131071", b"NaN", b"Infinity", b"null", b"true", b"9" * 500, b"0.1", b"1E400"),
    *(
        b"\\u0000",
        b"\\ud800",
        b"\\udc00",
        b"\xed\xa0\x80",
        b"\xc3\x28",
        b'{"a":1,"a":2}',
        b"[" * 200,
        b"]" * 200,
    ),
    *(
        b'"retry":false',
        b'"message":',
        b'"retry_after_seconds":',
        b'{"error":',
        b"#",
        b"=",
        b"'",
        b"%",
        b"@",
        b"/",
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=12,
)
BYTES = (
    st.binary(max_size=120)
    | st.lists(st.sampled_from(UGLY), max_size=12).map(b"".join)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.tuples(JSON, st.sampled_from(UGLY), st.integers(0, 200)).map(lambda it: _cut(*it))
)
TEXT = BYTES.map(lambda written: written.decode("utf-8", errors="surrogateescape"))


def _cut(value: object, ugly: bytes, place: int) -> bytes:
    """A document with something ugly in the middle of it."""
    text = json.dumps(value).encode()
    return text[:place] + ugly + text[place:]


def task_output(written: bytes) -> None:
    """Whatever a task writes, to whichever end it comes, becomes an outcome that PostgreSQL can hold."""
    for exit_status in (0, 1, -9):
        for stream in ("stdout", "stderr", "result"):
            _check_outcome(exit_status, {stream: written})


def _check_outcome(exit_status: int, streams: Mapping[str, bytes]) -> None:
    tails = {name: Tail(MAX_RESULT_BYTES) for name in ("stdout", "stderr", "result")}
    for name, written in streams.items():
        tails[name].feed(written)
    outcome = outcome_of(Output(exit_status=exit_status, **tails))
    if isinstance(outcome, Success):
        assert exit_status == 0
        canonical_json(parse_json(outcome.result))
    else:
        assert isinstance(outcome, Failure)
        assert len(outcome.message) <= MAX_MESSAGE_CHARS
        for text in (outcome.message, outcome.exception, outcome.traceback, outcome.stderr):
            assert "\0" not in (text or "")
            (text or "").encode()
        assert len(outcome.traceback or "") <= MAX_TRACEBACK_CHARS
        assert outcome.retry_after_s is None or outcome.retry_after_s >= 0


def strict_json(written: bytes) -> None:
    """It is refused by SpecError alone; what is accepted has one canonical text, which reads back as the same."""
    try:
        value = parse_json(written)
    except SpecError:
        return
    text = canonical_json(value)
    assert canonical_json(parse_json(text)) == text
    json.loads(text, parse_float=Decimal)


def report_of_a_fork(written: bytes) -> None:
    """What a task's fork has written is an report or nothing, and an report is written again as it can be read."""
    report = load_report(written)
    if report is not None:
        assert load_report(dump_report(report)) == report


def env_file(text: str) -> None:
    """`.env`: refused by ValueError alone, or names and values without a NUL."""
    try:
        values = parse_env_file(text)
    except ValueError:
        return
    assert all("\0" not in name + value for name, value in values.items())
    _settle(env_file_values=values)


def config_file(text: str) -> None:
    """`reproq.toml`: refused by ValueError alone, or told key by key."""
    try:
        values, problems = parse_config_file(text)
    except ValueError:
        return
    assert all(map(str.isprintable, problems)), problems
    _settle(config_values=values)


def _settle(**values: Mapping[str, str]) -> None:
    """Settings are resolved, and shown, whatever stands in the files."""
    sources = Sources({}, {}, Path("/srv"), **values)  # type: ignore[arg-type]
    resolved = resolve(sources, hostname="host", now=NOW, cpu_count=2)
    for line in describe(resolved):
        assert SECRET not in str(line)


def address(text: str) -> None:
    """A password never stands in what is shown of a database address, in any place where libpq would find one."""
    for dsn in (
        f"postgresql://user:{SECRET}{quote(text, safe='', errors='surrogateescape')}@host/db",
        f"postgresql://user:{SECRET}@{text}",
        f"postgresql://{text}?password={SECRET}",
        f"host={text} password={SECRET}",
        f"password='{SECRET}{text}",
        f"{text} password = {SECRET}",
    ):
        if _has_the_password(dsn):
            assert SECRET not in mask_url(dsn), dsn
    mask_url(text)


def _has_the_password(dsn: str) -> bool:
    """Whether libpq reads the secret as a part of a password; what it cannot read it connects nowhere with."""
    try:
        parts = psycopg.conninfo.conninfo_to_dict(dsn)
    except (psycopg.ProgrammingError, UnicodeEncodeError, ValueError):
        return False
    return SECRET in str(parts.get("password", ""))


TARGETS: Mapping[str, tuple[Callable[..., None], st.SearchStrategy[object]]] = {
    "task output": (task_output, BYTES),
    "strict JSON": (strict_json, BYTES),
    "the report of a fork": (report_of_a_fork, BYTES),
    ".env": (env_file, TEXT),
    "reproq.toml": (config_file, TEXT),
    "a database address": (address, TEXT),
}
