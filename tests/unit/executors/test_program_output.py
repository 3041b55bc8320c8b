from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reproq_prefork.executors.command import BLANK_BYTES
from reproq_prefork.executors.program_output import (
    MAX_MESSAGE_CHARS,
    MAX_RETRY_AFTER_S,
    MAX_TRACEBACK_CHARS,
    Output,
    outcome_of,
    readable,
)
from reproq_prefork.executors.tail import Tail
from reproq_prefork.model.limits import MAX_RESULT_BYTES, MAX_STDERR_TAIL_BYTES
from reproq_prefork.model.outcome import Failure, FailureKind, Outcome, Snoozed, Success
from reproq_prefork.spec.parse import parse_json
from reproq_prefork.task_exceptions import MAX_SNOOZE_S

SHARDS = [b"{", b"}", b"[", b'"', b"\n", b"1e999", b":", b"\\u0000", b"\xff", b" "]
ANY_BYTES = (
    st.binary(max_size=200)
    | st.text(max_size=100).map(lambda text: text.encode("utf-8", errors="surrogatepass"))
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
    | st.lists(
        st.sampled_from([b"{", b"}", b"[", b'"', b"\n", b"1e999", b":", b"\\u0000", b"\xff", b" "])
    ).map(b"".join)
)


def tail(written: bytes, limit: int = MAX_RESULT_BYTES + BLANK_BYTES) -> Tail:
    kept = Tail(limit)
    kept.feed(written)
    return kept


def ended(status: int = 0, stdout: bytes = b"", stderr: bytes = b"", result: bytes = b"") -> Outcome:
    return outcome_of(Output(status, tail(stdout), tail(stderr, MAX_STDERR_TAIL_BYTES), tail(result)))


def failed(status: int = 0, stdout: bytes = b"", stderr: bytes = b"", result: bytes = b"") -> Failure:
    outcome = ended(status, stdout, stderr, result)
    assert isinstance(outcome, Failure)
    return outcome


def said(error: object) -> Failure:
    return failed(1, stderr=json.dumps(error).encode())


def is_storable(text: str | None) -> bool:
    return text is None or ("\0" not in text and text.encode("utf-8") is not None)


# --- any bytes ---


@given(st.integers(-64, 255), ANY_BYTES, ANY_BYTES, ANY_BYTES)
@example(0, b'"\\ud800"', b"", b"")
@example(0, b"NaN", b"", b"")
@example(0, b'{"a":1,"a":2}', b"", b"")
@example(0, b"[" * 100_000, b"", b"")
@example(1, b"", b'{"message": "\\u0000"}', b"")
@example(1, b"", b"[" * 50_000, b"")
@example(1, b"", b'{"snooze_seconds": 1e390, "message": 7}', b"")
def test_any_bytes_give_an_outcome_that_can_be_stored(
    status: int, stdout: bytes, stderr: bytes, result: bytes
) -> None:
    outcome = ended(status, stdout, stderr, result)
    if isinstance(outcome, Success):
        assert status == 0
        parse_json(outcome.result)
        assert is_storable(outcome.result)
        assert len(outcome.result.encode()) <= MAX_RESULT_BYTES
        return
    if isinstance(outcome, Snoozed):
        assert status > 0
        assert 0 <= outcome.after_s <= MAX_SNOOZE_S
        assert is_storable(outcome.reason)
        return
    assert isinstance(outcome, Failure)
    assert outcome.message
    assert len(outcome.message) <= MAX_MESSAGE_CHARS
    for text in (outcome.message, outcome.exception, outcome.traceback, outcome.stderr):
        assert is_storable(text)
    assert outcome.retry_after_s is None or 0 <= outcome.retry_after_s <= MAX_RETRY_AFTER_S


@given(st.binary(max_size=200))
def test_any_bytes_become_text_that_can_be_stored(raw: bytes) -> None:
    assert is_storable(readable(raw))


# --- results ---


@pytest.mark.parametrize(
    ("stdout", "result"),
    [
        (b"42", "42"),
        (b" null \n", "null"),
        (b"", "null"),
        (b" \n\t\n", "null"),
        (b'{"a": [1,\n 2]}\n', '{"a": [1,\n 2]}'),
        (b'starting\nhalf done\n{"ok": true}\n', '{"ok": true}'),
        (b'starting\n{"ok": true}\n\n \n', '{"ok": true}'),
        (b"\xff\xfe log\n7", "7"),
        ('"h\xe9"'.encode(), '"h\xe9"'),
        (b"12345678901234567890.5", "12345678901234567890.5"),
    ],
)
def test_the_result_is_the_whole_output_or_its_last_line(stdout: bytes, result: str) -> None:
    assert ended(stdout=stdout) == Success(result)


def test_the_result_descriptor_takes_precedence_over_the_output() -> None:
    assert ended(stdout=b"1", result=b"2\n") == Success("2")
    assert ended(stdout=b"log", result=b"\n") == Success("null")
    assert failed(stdout=b"1", result=b"log\n2").kind is FailureKind.UNUSABLE_OUTPUT


@pytest.mark.parametrize(
    ("stdout", "reason"),
    [
        (b'{"half":', "not JSON"),
        (b"done", "not JSON"),
        (b'log\n{"half":', "not JSON"),
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b'"a\\u0000b"', "U+0000"),
        (b'"\\ud83d"', "lone surrogate"),
        (b'"caf\xe9"', "not UTF-8"),
        (b"1e1000", "more than 400 digits"),
        (b"[" + b",".join([b"1e131071"] * 1000) + b"]", "more than 400 digits"),
        (b"[" * 101 + b"]" * 101, "more than 100 arrays"),
        (b'{"a": 1, "a": 2}', "more than once"),
    ],
)
def test_output_that_cannot_be_stored_ends_the_run_with_the_reason(stdout: bytes, reason: str) -> None:
    outcome = failed(stdout=stdout, stderr=b"a hint\n")
    assert outcome.kind is FailureKind.UNUSABLE_OUTPUT
    assert not outcome.retry
    assert reason in outcome.message
    assert outcome.stderr == "a hint"


def json_of(size: int) -> bytes:
    return b'"' + b"x" * (size - 2) + b'"'


@pytest.mark.parametrize("around", [b"", b"\n", b"log line\n"])
def test_a_result_of_the_largest_size_is_accepted_and_one_byte_more_is_not(around: bytes) -> None:
    assert isinstance(ended(stdout=around + json_of(MAX_RESULT_BYTES) + b"\n"), Success)
    outcome = failed(stdout=around + json_of(MAX_RESULT_BYTES + 1) + b"\n")
    assert outcome.kind is FailureKind.UNUSABLE_OUTPUT
    assert not outcome.retry
    assert "1,048,577 bytes, the limit is 1,048,576" in outcome.message


def test_a_result_after_more_logs_than_are_kept_is_found() -> None:
    logs = b"a line of log\n" * 1_000_000
    assert ended(stdout=logs + b"[1]\n") == Success("[1]")
    assert isinstance(ended(stdout=logs + json_of(MAX_RESULT_BYTES) + b"\n"), Success)


def test_the_end_of_a_line_that_was_cut_is_not_a_result() -> None:
    outcome = failed(stdout=b"1" * (3 * MAX_RESULT_BYTES))
    assert outcome.kind is FailureKind.UNUSABLE_OUTPUT
    assert not outcome.retry
    assert "3,145,728 bytes" in outcome.message


# --- errors ---


def test_an_exit_status_without_output_is_the_message() -> None:
    assert failed(3) == Failure(FailureKind.FAILED, "exit status 3")


def test_the_signal_that_killed_a_program_is_the_message() -> None:
    outcome = failed(-9, stderr=b"last words\n")
    assert (outcome.kind, outcome.message) == (FailureKind.KILLED, "killed by signal 9")
    assert outcome.stderr == "last words"


def test_text_on_stderr_gives_its_last_line_as_the_message() -> None:
    outcome = failed(1, stderr=b"Traceback ...\nValueError: caf\xe9\0\n")
    assert outcome.message == "ValueError: caf\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"


def test_json_on_stderr_gives_its_parts() -> None:
    error = {"message": "gone", "exception": "app.Gone", "traceback": "a\nb", "retry": False}
    for stderr in (json.dumps(error), json.dumps(error, indent=1), f"a warning\n{json.dumps(error)}\n"):
        outcome = failed(1, stderr=stderr.encode())
        assert (outcome.message, outcome.exception, outcome.traceback) == ("gone", "app.Gone", "a\nb")
        assert outcome.retry is False


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"message": "no", "exception": "E", "traceback": "tb", "retry": False}, False),
        ({"error": "no", "type": "E", "retry_after_seconds": 3}, False),
        ({"message": "no", "traceback": None}, False),
        ({"message": "no", "error": "another"}, True),
        ({"message": "no", "code": 7}, True),
        ({"message": "no", "details": {"a": [1]}}, True),
        ({"message": "n" * (MAX_MESSAGE_CHARS + 1)}, True),
        ({"message": ["no"]}, True),
    ],
)
def test_json_on_stderr_is_kept_as_text_only_if_part_of_it_would_be_lost(
    said: dict[str, object], kept: bool
) -> None:
    line = json.dumps(said)
    assert failed(1, stderr=line.encode()).stderr == (line if kept else None)
    log = f"a warning\n{line}"
    assert failed(1, stderr=log.encode()).stderr == (log if kept else "a warning")


def test_the_other_names_of_the_parts_are_understood() -> None:
    outcome = said({"error": "gone", "type": "Gone"})
    assert (outcome.message, outcome.exception) == ("gone", "Gone")


def test_parts_of_another_type_are_not_taken() -> None:
    outcome = said({"message": 7, "exception": ["x"], "traceback": None})
    assert (outcome.exception, outcome.traceback) == (None, None)
    assert outcome.message.startswith("{")


def test_long_parts_are_cut_and_a_traceback_at_its_start() -> None:
    outcome = said({"message": "m" * 5000, "traceback": "t" * 40_000 + "the end"})
    assert len(outcome.message) == MAX_MESSAGE_CHARS
    assert outcome.traceback is not None
    assert len(outcome.traceback) == MAX_TRACEBACK_CHARS
    assert outcome.traceback.endswith("the end")


@pytest.mark.parametrize(
    ("retry", "expected"), [(False, False), (True, True), (0, True), ("no", True), (None, True)]
)
def test_only_false_rules_out_a_retry(retry: object, expected: bool) -> None:
    assert said({"message": "m", "retry": retry}).retry is expected


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("30", 30.0),
        ("0", 0.0),
        ("1.5", 1.5),
        ("1e300", MAX_RETRY_AFTER_S),
        ("9" * 400, MAX_RETRY_AFTER_S),
        ("1e-390", 0.0),
        ("-1", None),
        ("-0.5", None),
        ("true", None),
        ("false", None),
        ('"30"', None),
        ("null", None),
        ("[30]", None),
    ],
)
def test_seconds_until_the_next_attempt_are_a_number_that_is_not_negative(
    written: str, seconds: float | None
) -> None:
    outcome = failed(1, stderr=f'{{"message": "m", "retry_after_seconds": {written}}}'.encode())
    assert outcome.message == "m"
    assert outcome.retry_after_s == seconds
    assert not isinstance(outcome.retry_after_s, Decimal)


# --- snoozing ---


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("60", 60.0), ("0", 0.0), ("0.5", 0.5), ("1e-390", 0.0), ("3153600000", MAX_SNOOZE_S)],
)
def test_a_program_may_ask_to_be_run_again_later(written: str, seconds: float) -> None:
    said = f'{{"snooze_seconds": {written}}}'.encode()
    assert ended(1, stderr=said) == Snoozed(seconds)
    assert ended(75, stderr=b"looked, and found nothing\n" + said + b"\n") == Snoozed(seconds)


def test_a_snooze_may_give_its_reason_and_takes_precedence_over_a_retry() -> None:
    said = {"snooze_seconds": 5, "message": "not ready", "retry": False, "retry_after_seconds": 7}
    assert ended(1, stderr=json.dumps(said).encode()) == Snoozed(5, "not ready")


@pytest.mark.parametrize(
    "written",
    [
        "-1",
        "-0.5",
        "3153600001",
        "1e300",
        "true",
        "false",
        '"60"',
        "[60]",
        '{"s": 60}',
        '"' + "9" * 500 + '"',
    ],
)
def test_a_snooze_of_any_other_length_is_a_failure_that_says_so(written: str) -> None:
    outcome = failed(1, stderr=f'{{"message": "m", "snooze_seconds": {written}}}'.encode())
    assert outcome.kind is FailureKind.FAILED
    assert outcome.message.startswith("snooze_seconds must be a number of seconds from 0 to 3153600000")
    assert len(outcome.message) < 250
    assert outcome.stderr is not None
    assert "snooze_seconds" in outcome.stderr
    assert outcome.retry


def test_null_seconds_are_not_a_snooze() -> None:
    assert said({"message": "m", "snooze_seconds": None}).message == "m"


def test_a_program_that_was_killed_has_not_snoozed() -> None:
    assert failed(-9, stderr=b'{"snooze_seconds": 60}').kind is FailureKind.KILLED


def test_a_program_that_succeeded_has_not_snoozed() -> None:
    assert ended(0, stdout=b"7", stderr=b'{"snooze_seconds": 60}') == Success("7")
    assert ended(0, stdout=b'{"snooze_seconds": 60}') == Success('{"snooze_seconds": 60}')
