"""jsonb keeps the value of a number and not its spelling: the hash must not depend on what it changes."""

import json
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reproq_prefork.spec import Spec
from reproq_prefork.spec.canonical import canonical_json
from reproq_prefork.spec.rules import MAX_DEPTH
from tests.support.checkout import CHECKOUT

VECTORS = json.loads((CHECKOUT / "docs" / "spec-hash-vectors.json").read_text(encoding="utf-8"))

storable_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
number_texts = st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)
strings_and_names = st.none() | st.booleans() | storable_text
json_texts = st.recursive(
    number_texts | strings_and_names.map(json.dumps),
    lambda inner: (
        st.lists(inner, max_size=5).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(storable_text, inner, max_size=5).map(
            lambda members: (
                "{" + ", ".join(f"{json.dumps(key)}: {text}" for key, text in members.items()) + "}"
            )
        )
    ),
)
# The fixture is one connection for all examples; none of them writes.
over_one_connection = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def through_jsonb(connection: psycopg.Connection[Any], text: str) -> str:
    row = connection.execute("select %s::text::jsonb::text", (text,)).fetchone()
    assert row is not None
    returned: str = row[0]
    return returned


@over_one_connection
@given(text=json_texts)
def test_the_hash_survives_jsonb_however_the_document_was_spelled(
    connection: psycopg.Connection[Any], text: str
) -> None:
    spec = Spec.parse(text)
    assert Spec.parse(through_jsonb(connection, text)) == spec
    assert Spec.parse(through_jsonb(connection, spec.canonical)) == spec


@over_one_connection
@given(value=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**399), 10**399))
def test_the_hash_of_a_number_survives_jsonb(connection: psycopg.Connection[Any], value: float) -> None:
    spec = Spec.of({"args": [value]})
    assert Spec.parse(through_jsonb(connection, spec.canonical)) == spec
    assert Spec.parse(through_jsonb(connection, json.dumps({"args": [value]}))) == spec


@pytest.mark.parametrize("vector", VECTORS["accepted"], ids=lambda vector: vector["name"])
def test_a_vector_keeps_its_hash_in_jsonb(
    connection: psycopg.Connection[Any], vector: dict[str, Any]
) -> None:
    assert Spec.parse(through_jsonb(connection, vector["json"])).hash == vector["sha256"]


def test_the_limits_are_ones_that_jsonb_can_hold(connection: psycopg.Connection[Any]) -> None:
    deep: object = [10**400 - 1]
    for _ in range(MAX_DEPTH - 1):
        deep = [deep]
    text = canonical_json(deep)
    assert canonical_json(Spec.parse(through_jsonb(connection, text)).payload) == text
