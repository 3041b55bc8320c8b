"""What can be said of a new run, and the sentences for what cannot."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from inspect import Parameter, signature
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork import enqueue
from reproq_prefork.errors import ExitStatus
from reproq_prefork.model.limits import MAX_PAYLOAD_BYTES
from reproq_prefork.model.new_run import InvalidRun, NewRun
from reproq_prefork.model.run import TaskRun
from reproq_prefork.settings.kinds import QUEUE_NAMES
from reproq_prefork.spec import Spec, spec_hash
from reproq_prefork.spec.rules import SpecError
from reproq_prefork.store.json_columns import UnreadableJson, read_json


def test_only_a_payload_is_needed() -> None:
    new = NewRun.of({"n": 1})
    assert new == NewRun(Spec.of({"n": 1}), "default", 0, None, None, 3, None, None)


def test_a_spec_is_taken_as_it_is() -> None:
    spec = Spec.of([1, 2])
    assert NewRun.of(spec).spec is spec


def test_a_moment_and_a_delay_are_kept_apart() -> None:
    moment = datetime(2026, 11, 24, tzinfo=timezone(timedelta(hours=5)))
    assert (NewRun.of(1, run_after=moment).run_after, NewRun.of(1, run_after=moment).delay_s) == (
        moment,
        None,
    )
    assert NewRun.of(1, run_after=timedelta(minutes=1.5)).delay_s == 90.0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"queue_name": ""}, "queue_name must be a string that is not empty"),
        ({"queue_name": None}, "queue_name must be a string that is not empty, not None"),
        ({"queue_name": "q" * 129}, "is longer than 128 characters"),
        ({"queue_name": "a,b"}, 'queue_name "a,b" holds a comma'),
        ({"queue_name": "a\nb"}, r'queue_name "a\\nb" holds'),
        ({"queue_name": "a\0"}, "queue_name"),
        ({"queue_name": " a"}, "a space at the start or the end"),
        ({"priority": 101}, "priority must be a whole number from -100 to 100, not 101"),
        ({"priority": -101}, "priority"),
        ({"priority": True}, "priority must be a whole number from -100 to 100, not True"),
        ({"priority": 1.0}, "priority"),
        ({"priority": 10**5000}, "not a number of more than 30 digits"),
        ({"max_attempts": 0}, "max_attempts must be a whole number from 1 to 1000, not 0"),
        ({"max_attempts": 1001}, "max_attempts"),
        (
            {"timeout_seconds": float("nan")},
            r"timeout_seconds must be from 0 \(no deadline\) to 31536000, not nan",
        ),
        ({"timeout_seconds": float("inf")}, "timeout_seconds"),
        ({"timeout_seconds": -0.1}, "timeout_seconds"),
        ({"timeout_seconds": 1e9}, "timeout_seconds"),
        ({"timeout_seconds": "5"}, "timeout_seconds must be a number of seconds"),
        ({"unique_key": ""}, "unique_key must be a string that is not empty, or None"),
        ({"unique_key": 5}, "unique_key must be a string"),
        ({"unique_key": "a\0b"}, r'unique_key "a\\x00b" cannot be stored: U\+0000'),
        ({"unique_key": "\ud800"}, "unique_key .* cannot be stored"),
        ({"unique_key": "é" * 513}, "is longer than 1024 bytes; use a hash of it"),
        ({"run_after": datetime(2026, 11, 24)}, "2026-11-24T00:00:00 has no time zone"),  # noqa: DTZ001
        ({"run_after": datetime(9999, 12, 31, tzinfo=UTC)}, "is not in the years 2 to 9998"),
        ({"run_after": timedelta(seconds=-1)}, "run_after must be between 0 and 100 years"),
        ({"run_after": timedelta.max}, "run_after must be between 0 and 100 years from now"),
        ({"run_after": 5}, "run_after must be a datetime or a timedelta, not 5"),
    ],
)
def test_a_wrong_value_is_refused_by_name(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidRun, match=sentence) as caught:
        NewRun.of(None, **arguments)
    assert isinstance(caught.value, ValueError)
    assert caught.value.exit_status is ExitStatus.USAGE
    assert str(caught.value).isprintable()


def test_a_payload_is_refused_by_its_path_or_its_size() -> None:
    with pytest.raises(SpecError, match=r"args\[0\]: NaN"):
        NewRun.of({"args": [float("nan")]})
    assert NewRun.of("x" * (MAX_PAYLOAD_BYTES - 2)).queue_name == "default"
    with pytest.raises(SpecError, match=r"1048577 bytes and the limit is 1048576"):
        NewRun.of("x" * (MAX_PAYLOAD_BYTES - 1))


@given(st.text())
def test_a_queue_that_takes_runs_can_be_named_by_a_worker(name: str) -> None:
    try:
        accepted = NewRun.of(None, queue_name=name).queue_name
    except InvalidRun:
        return
    assert QUEUE_NAMES.parse(accepted) == (name,)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(JSON_VALUES)
def test_a_payload_that_is_read_has_the_hash_of_the_written_one(value: Any) -> None:
    spec = Spec.of(value)
    assert spec_hash(read_json(spec.canonical)) == spec.hash


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_read_as_the_same_number(number: float) -> None:
    read = read_json(Spec.of(number).canonical)
    # A large float is written as a whole number, and the shortest form of it need not be its exact value.
    assert float(read) == number


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.1", 0.1), ("1.50", 1.5), ("-0.0", 0), ("1e-7", 1e-7), ("9007199254740993", 9007199254740993)],
)
def test_a_number_is_what_python_would_have_sent(text: str, value: object) -> None:
    assert read_json(text) == value


def test_a_number_that_no_float_has_stays_exact() -> None:
    assert read_json("[0.12345678901234567890123]") == [Decimal("0.12345678901234567890123")]


def test_json_that_is_more_than_a_spec_may_hold_is_kept_as_text() -> None:
    deep = "[" * 200 + "]" * 200
    unreadable = read_json(deep)
    assert isinstance(unreadable, UnreadableJson)
    assert unreadable.text == deep
    assert "100 arrays and objects" in unreadable.why


def test_the_size_of_a_payload_is_that_of_its_text_in_the_database() -> None:
    fits, does_not = [1] * (MAX_PAYLOAD_BYTES // 3), [1] * (MAX_PAYLOAD_BYTES // 3 + 1)
    NewRun.of(fits)
    payloads: list[Any] = [does_not, {str(number): {} for number in range(100_000)}]
    for payload in payloads:
        with pytest.raises(SpecError, match="the limit is"):
            NewRun.of(payload)


def test_enqueue_has_the_options_of_a_new_run_in_its_signature() -> None:
    """The options are listed once; `help(enqueue)` and type checkers read that list."""
    own, options = ["connection", "payload"], list(signature(NewRun.of).parameters.values())[1:]
    shown = list(signature(enqueue).parameters.values())
    assert [parameter.name for parameter in shown[:2]] == own
    assert shown[2:] == options
    assert {option.kind for option in options} == {Parameter.KEYWORD_ONLY}


def test_the_columns_of_a_new_run_are_columns_of_a_run() -> None:
    assert NewRun.of({}).columns().keys() <= {field.name for field in fields(TaskRun)}
