"""Reading what a jsonb column holds: the fast way gives what the exact one gives, to the type of each number."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reproq_prefork.spec.parse import parse_json
from reproq_prefork.spec.rules import SpecError
from reproq_prefork.spec.values import with_floats
from reproq_prefork.store.json_columns import UnreadableJson, read_json

DIGITS = st.text("0123456789", min_size=1, max_size=25).map(lambda text: text.lstrip("0") or "0")
NUMBERS = st.builds(
    lambda sign, whole, fraction, exponent: sign + whole + fraction + exponent,
    st.sampled_from(["", "-"]),
    DIGITS,
    st.just("") | DIGITS.map(lambda text: f".{text}"),
    st.just("") | st.integers(-400, 400).map(lambda number: f"e{number:+d}"),
)
STRINGS = st.text(max_size=5).map(json.dumps) | st.text(max_size=5).map(
    lambda text: json.dumps(text, ensure_ascii=False)
)
SCALARS = STRINGS | NUMBERS | st.sampled_from(["null", "true", "false", "NaN", "-Infinity", "01", "", " 1"])


def texts(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arrays = st.lists(inner, max_size=4).map(lambda members: f"[{','.join(members)}]")
    objects = st.lists(inner, max_size=4).map(
        lambda members: "{" + ",".join(f'"{place}":{each}' for place, each in enumerate(members)) + "}"
    )
    return arrays | objects


def exactly(text: str) -> Any:
    try:
        return with_floats(parse_json(text))
    except SpecError as error:
        return UnreadableJson(text, str(error))


@given(st.recursive(SCALARS, texts, max_leaves=10))
@example('"\ud800"')
@example(r'"\ud800"')
@example(r'"\u0000"')
@example("1e+21")
@example("-0")
@example("-0.0")
@example("123456789012345678901")
@example("1" * 5000)
@example("[1] ")
@example("[1]2")
@example("[" * 101 + "]" * 101)
@example('{"a":' * 100 + "1.5" + "}" * 100)
@example("[" * 100_000)
def test_the_fast_reader_agrees_with_the_exact_one(text: str) -> None:
    assert repr(read_json(text)) == repr(exactly(text))


@pytest.mark.parametrize("text", ['{"a":1}', "[1,2.5]", '"é"'])
def test_plain_json_is_read_the_fast_way(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reproq_prefork.store.json_columns._exactly", lambda text: pytest.fail(text))
    assert read_json(text) == json.loads(text)
