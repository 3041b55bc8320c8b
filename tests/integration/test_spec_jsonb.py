"""jsonb keeps the value of a number and not its spelling: the hash must not depend on what it changes.

And the server computes the same hash, by `reproq_spec_hash`.
"""

import json
import math
import struct
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reproq_prefork.spec import Spec
from reproq_prefork.spec.canonical import canonical_json
from reproq_prefork.spec.rules import MAX_DEPTH, SpecError
from tests.support.checkout import CHECKOUT
from tests.support.examples import examples

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


# --- the server's own hash ---


def of_server(connection: psycopg.Connection[Any], text: str) -> str:
    row = connection.execute("select reproq_spec_hash(%s::text::jsonb)", (text,)).fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.parametrize("vector", VECTORS["accepted"], ids=lambda vector: vector["name"])
def test_the_server_gives_a_vector_its_hash(
    connection: psycopg.Connection[Any], vector: dict[str, Any]
) -> None:
    assert of_server(connection, vector["json"]) == vector["sha256"]
    assert of_server(connection, vector["canonical"]) == vector["sha256"]


@pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])
def test_the_server_refuses_a_vector_that_has_no_hash(
    connection: psycopg.Connection[Any], vector: dict[str, Any]
) -> None:
    """Except a key that is twice in an object: jsonb keeps the last one, before a function sees it."""
    if "more than once" in vector["why"]:
        assert of_server(connection, vector["json"])
        return
    # By our function, by jsonb, or by the driver, which cannot send all of them.
    with pytest.raises((psycopg.errors.CheckViolation, psycopg.DataError, ValueError)) as caught:
        of_server(connection, vector["json"])
    if isinstance(caught.value, psycopg.errors.CheckViolation):
        assert "of the payload" in str(caught.value)


@over_one_connection
@given(text=json_texts)
def test_the_server_gives_a_document_the_hash_that_python_gives(
    connection: psycopg.Connection[Any], text: str
) -> None:
    assert of_server(connection, text) == Spec.parse(text).hash


@over_one_connection
@given(
    value=st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(10**399), 10**399)
    | st.decimals(allow_nan=False, allow_infinity=False).filter(lambda value: abs(value.adjusted()) < 10**6)
)
def test_the_server_gives_a_number_the_hash_that_python_gives(
    connection: psycopg.Connection[Any], value: float | Decimal
) -> None:
    try:
        spec = Spec.of([value])
    except SpecError:
        with pytest.raises((psycopg.errors.CheckViolation, psycopg.errors.NumericValueOutOfRange)):
            of_server(connection, f"[{value}]")
        return
    assert of_server(connection, f"[{value!s}]") == spec.hash


def doubles(exponent: int, mantissa: int) -> float:
    (value,) = struct.unpack(">d", ((exponent << 52) | mantissa).to_bytes(8, "big"))
    assert isinstance(value, float)
    return value


@settings(over_one_connection, max_examples=examples(300))
@given(
    value=st.builds(
        doubles,
        st.integers(0, 2046),
        st.sampled_from([0, 1, 2, 2**51, 2**52 - 1, 2**52 - 2]) | st.integers(0, 2**52 - 1),
    ),
    digits=st.integers(1, 18),
    unit=st.integers(-2, 2),
)
def test_the_server_agrees_on_decimals_close_to_a_double(
    connection: psycopg.Connection[Any], value: float, digits: int, unit: int
) -> None:
    """Also those between two doubles, where the shortest decimal of each changes hands."""
    rounded = Decimal(f"{Decimal(value):.{digits - 1}e}")
    near = rounded + unit * Decimal((0, (1,), rounded.as_tuple().exponent))  # type: ignore[arg-type]
    above = math.nextafter(value, math.inf)
    between = Decimal(value) if math.isinf(above) else (Decimal(value) + Decimal(above)) / 2
    halfway = Decimal(f"{between:.{digits - 1}e}")
    for each in (near, halfway, Decimal(repr(value))):
        try:
            expected = Spec.of(each).hash
        except SpecError:
            continue
        assert of_server(connection, f"{each:f}") == expected, each


@pytest.mark.parametrize(
    "text",
    ["1e23", "9.999999999999999e22", "9e22", "5e-324", "1e22", "2.5e-324", "1.7976931348623158e308", "1e309"],
)
def test_the_server_agrees_where_two_doubles_are_equally_near(
    connection: psycopg.Connection[Any], text: str
) -> None:
    """1e23 is such a number: PostgreSQL itself writes it 9.999999999999999e+22."""
    assert of_server(connection, text) == Spec.parse(text).hash


def test_the_hash_of_the_server_does_not_depend_on_the_session(connection: psycopg.Connection[Any]) -> None:
    document = {"b": [1e23, 1.5e-9, 123456.75e30], "a": None}
    expected = Spec.of(document).hash
    connection.execute("set extra_float_digits = -15")
    connection.execute("create schema mine")
    connection.execute("create function mine.sha256(bytea) returns bytea language sql return ''::bytea")
    connection.execute(
        "create function mine.reproq_canonical_json(jsonb, integer) returns text language sql return ''"
    )
    connection.execute("set search_path = mine, pg_catalog, public")
    row = connection.execute("select public.reproq_spec_hash(%s::jsonb)", (json.dumps(document),)).fetchone()
    assert row == (expected,)


def test_the_server_may_compute_the_hash_in_an_index(connection: psycopg.Connection[Any]) -> None:
    """It is immutable; and without a payload there is no hash."""
    connection.execute("create table documents (document jsonb)")
    connection.execute("create index on documents (reproq_spec_hash(document))")
    assert connection.execute("select reproq_spec_hash(null)").fetchone() == (None,)
