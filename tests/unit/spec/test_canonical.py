import contextlib
import datetime
import enum
import json
import math
import struct
import sys
from collections import OrderedDict
from decimal import Decimal, localcontext
from typing import Any, NamedTuple

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from reproq_prefork.spec.canonical import canonical_json
from reproq_prefork.spec.parse import parse_json
from reproq_prefork.spec.rules import SpecError

storable_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
plain_text = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00", max_codepoint=0xFFFF)
)
finite_floats = st.floats(allow_nan=False, allow_infinity=False)
decimals = st.decimals(-(10**40), 10**40, allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers() | finite_floats | decimals | storable_text
plain_scalars = st.none() | st.booleans() | st.integers(1 - 2**53, 2**53 - 1) | storable_text

FEW_CALLS = 4


def documents(leaves: st.SearchStrategy[Any], keys: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(keys, inner, max_size=5)
    )


def double(ieee_754_hex: str) -> float:
    (value,) = struct.unpack(">d", bytes.fromhex(ieee_754_hex))
    assert isinstance(value, float)
    return value


def nested(depth: int, innermost: object = None) -> object:
    value = innermost
    for _ in range(depth):
        value = [value]
    return value


# Numbers

RFC_8785_APPENDIX_B = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]


@pytest.mark.parametrize(("bits", "text"), RFC_8785_APPENDIX_B)
def test_a_double_is_written_as_rfc_8785_appendix_b_says(bits: str, text: str) -> None:
    assert canonical_json(double(bits)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (4.50, "4.5"),
        (2e-3, "0.002"),
        (123456789012345680000.0, "123456789012345680000"),
        (1e20, "100000000000000000000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.25e-9, "1.25e-9"),
        (2.2250738585072014e-308, "2.2250738585072014e-308"),
    ],
)
def test_the_exponent_appears_where_ecmascript_begins_to_write_it(value: float, text: str) -> None:
    assert canonical_json(value) == text
    assert canonical_json(-value) == f"-{text}"


@pytest.mark.parametrize("bits", ["7fffffffffffffff", "7ff0000000000000", "fff0000000000000"])
def test_nan_and_infinities_are_refused(bits: str) -> None:
    with pytest.raises(SpecError, match=r"^a\[1\]: NaN and infinities"):
        canonical_json({"a": [0, double(bits)]})


@pytest.mark.parametrize("text", ["NaN", "sNaN", "Infinity", "-Infinity"])
def test_decimal_nan_and_infinities_are_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"^\$: NaN and infinities"):
        canonical_json(Decimal(text))


def test_a_snowflake_id_keeps_all_its_digits() -> None:
    assert canonical_json({"id": 9007199254740993}) == '{"id":9007199254740993}'
    assert canonical_json([1234567890123456789, -(2**63)]) == "[1234567890123456789,-9223372036854775808]"


def test_an_integer_takes_the_form_of_a_double_only_if_that_denotes_it() -> None:
    assert (
        canonical_json([10**20, 10**21, 10**22 + 1])
        == "[100000000000000000000,1e+21,10000000000000000000001]"
    )
    assert canonical_json([2**68, float(2**68)]) == "[295147905179352825856,295147905179352830000]"


def test_a_fraction_that_no_double_holds_keeps_all_its_digits() -> None:
    assert canonical_json(Decimal("333333333.33333329")) == "333333333.33333329"
    assert canonical_json(Decimal("-0.10000000000000000000001")) == "-0.10000000000000000000001"
    assert canonical_json(Decimal("1e-330")) == "0." + "0" * 329 + "1"


@pytest.mark.parametrize(
    "same",
    [
        [0, 0.0, -0.0, Decimal("-0.00"), Decimal("0e999999")],
        [1, 1.0, Decimal("1.000"), Decimal("0.1e1")],
        [10**22, 1e22, Decimal("1e22"), Decimal("10000000000000000000000.0")],
        [0.1, Decimal("0.1"), Decimal("0.1000"), Decimal("1e-1")],
        [9007199254740993, Decimal("9007199254740993.0"), Decimal("9.007199254740993e15")],
    ],
)
def test_one_value_is_one_text(same: list[Any]) -> None:
    assert len({canonical_json(value) for value in same}) == 1


@given(st.decimals(allow_nan=False, allow_infinity=False, places=5) | decimals, st.integers(0, 30))
def test_numbers_equal_by_value_have_equal_text(value: Decimal, zeros: int) -> None:
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    padded = Decimal((sign, digits + (0,) * zeros, exponent - zeros))
    assert canonical_json(padded) == canonical_json(value)
    assert Decimal(canonical_json(value)) == value


@given(st.integers(-(10**400) + 1, 10**400 - 1))
def test_an_integer_and_the_same_decimal_have_equal_text(value: int) -> None:
    assert canonical_json(Decimal(value)) == canonical_json(value)
    assert int(Decimal(canonical_json(value))) == value


@given(finite_floats)
@example(5e-324)
@example(1.7976931348623157e308)
@example(9.5367431640625e-07)
def test_every_double_is_written_as_another_rfc_8785_implementation_does(value: float) -> None:
    assert canonical_json(value).encode() == rfc8785.dumps(value)
    assert float(canonical_json(value)) == value


@given(finite_floats)
def test_a_float_and_the_decimal_of_its_json_have_equal_text(value: float) -> None:
    assert canonical_json(Decimal(repr(value))) == canonical_json(value)


def test_the_decimal_context_of_the_caller_does_not_matter() -> None:
    values = [Decimal("1e22"), Decimal("123456789.123456789"), 0.1]
    expected = canonical_json(values)
    with localcontext() as context:
        context.prec, context.capitals, context.Emax = 2, 0, 3
        context.clear_traps()
        assert canonical_json(values) == expected


@pytest.mark.parametrize(
    "value", [10**400 - 1, -(10**400) + 1, Decimal("1e399"), Decimal("-1e-399"), Decimal("1." + "0" * 5000)]
)
def test_400_digits_are_accepted(value: int | Decimal) -> None:
    assert Decimal(canonical_json(value)) == value


@pytest.mark.parametrize(
    "value",
    [
        10**400,
        -(10**400),
        pytest.param(1 << 10_000_000, id="a bit far out"),
        Decimal("1e400"),
        Decimal("1e-400"),
        Decimal("1e131071"),
        Decimal("1e999999999999999999"),
        Decimal("1e-999999999999999999"),
        Decimal("1." + "0" * 399 + "1"),
    ],
)
def test_more_than_400_digits_are_refused_before_they_are_written_out(value: int | Decimal) -> None:
    with pytest.raises(SpecError, match=r"^args\[0\]: the number has more than 400 digits"):
        canonical_json({"args": [value]})


def test_a_bool_is_not_a_number() -> None:
    assert canonical_json([True, False, 1, 0]) == "[true,false,1,0]"
    assert canonical_json([True, False, 1.5]) == "[true,false,1.5]"


# Strings and keys


def test_only_what_must_be_escaped_is_escaped() -> None:
    mandatory = "".join(map(chr, range(1, 0x20))) + '"\\'
    text = (
        r'"\u0001\u0002\u0003\u0004\u0005\u0006\u0007\b\t\n\u000b\f\r\u000e\u000f\u0010\u0011\u0012\u0013'
        r'\u0014\u0015\u0016\u0017\u0018\u0019\u001a\u001b\u001c\u001d\u001e\u001f\"\\"'
    )
    assert canonical_json(mandatory) == text
    assert canonical_json("/\x7f\x80\u2028é€😀") == '"/\x7f\x80\u2028é€😀"'


def test_the_example_of_rfc_8785_section_3_2_2() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"/",
        "literals": [None, True, False],
    }
    assert canonical_json(value) == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_keys_are_sorted_by_utf_16_code_units_as_in_rfc_8785_section_3_2_3() -> None:
    sorted_keys = ["\r", "1", "\x80", "ö", "€", "😀", "\ufb33"]
    assert sorted_keys != sorted(sorted_keys)
    value = dict.fromkeys(reversed(sorted_keys))
    assert list(json.loads(canonical_json(value))) == sorted_keys
    assert list(json.loads(canonical_json([0.5, {"inside": value}]))[1]["inside"]) == sorted_keys


def test_a_backslash_before_u0000_is_not_the_character_nul() -> None:
    assert canonical_json("\\u0000") == '"\\\\u0000"'


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("\x00", "$"),
        ({"args": [{"name": "a\x00b"}]}, "args[0].name"),
        ({"args": ["é", 1.5, "\x00"]}, "args[2]"),
        ({"a\x00": 1}, '["a\\u0000"]'),
    ],
)
def test_nul_is_refused(value: object, path: str) -> None:
    with pytest.raises(SpecError, match=r"U\+0000 cannot be stored") as caught:
        canonical_json(value)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("\ud800", "$"),
        ("\ud83d\ude00", "$"),
        (["ok", "é\udfff"], "[1]"),
        ({"k": {"\udc80": 1}}, 'k["\\udc80"]'),
    ],
)
def test_a_lone_surrogate_is_refused_by_an_error_that_can_be_logged(value: object, path: str) -> None:
    with pytest.raises(SpecError, match=r"lone surrogate U\+D[89CF]") as caught:
        canonical_json(value)
    assert caught.value.path == path
    str(caught.value).encode("utf-8")


@pytest.mark.parametrize("key", [1, 1.5, None, True, ("a",), b"a"])
def test_a_key_that_is_not_a_string_is_refused(key: object) -> None:
    with pytest.raises(SpecError, match=r"^kwargs: a key is of type \w+; JSON has only strings"):
        canonical_json({"kwargs": {"ok": 1, key: 2}})


# Structure


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (datetime.date(2024, 1, 1), "datetime.date"),
        ({1}, "set"),
        (b"bytes", "bytes"),
        (1j, "complex"),
        (object(), "object"),
        (Decimal, "type"),
    ],
)
def test_a_value_without_a_json_form_is_refused_by_type_and_path(value: object, name: str) -> None:
    with pytest.raises(SpecError) as caught:
        canonical_json({"args": [0, {"when": value}]})
    assert str(caught.value).startswith(f"args[1].when: a {name} has no form in JSON")


def test_the_empty_containers() -> None:
    assert canonical_json([]) == "[]"
    assert canonical_json({}) == "{}"
    assert canonical_json([[], {}, (), "", 1.5]) == '[[],{},[],"",1.5]'


def test_a_tuple_is_an_array() -> None:
    assert canonical_json((1, ("a",), {"k": ()})) == canonical_json([1, ["a"], {"k": []}])
    assert canonical_json((1.5, ("a",))) == '[1.5,["a"]]'


def test_a_subclass_is_written_as_the_type_it_extends() -> None:
    class Colour(enum.IntEnum):
        RED = 1

    class Loud(str):
        def __str__(self) -> str:
            return "LOUD"

    class Odd(float):
        def __repr__(self) -> str:
            return "odd"

    class Point(NamedTuple):
        x: int
        y: int

    value = OrderedDict(b=Colour.RED, a=[Loud("quiet"), Odd(0.5), Point(1, 2)])
    assert canonical_json(value) == '{"a":["quiet",0.5,[1,2]],"b":1}'


@pytest.mark.parametrize("innermost", [None, 1.5])
def test_a_depth_of_100_is_accepted_and_101_is_refused(innermost: object) -> None:
    assert canonical_json(nested(100, innermost)).startswith("[" * 100)
    with pytest.raises(SpecError, match="more than 100 arrays and objects") as caught:
        canonical_json(nested(101, innermost))
    assert caught.value.path == "[0]" * 100


def test_a_value_inside_itself_is_refused() -> None:
    loop: list[object] = []
    loop.extend([loop, loop])
    with pytest.raises(SpecError, match="more than 100 arrays and objects"):
        canonical_json(loop)


@pytest.mark.parametrize("innermost", [None, 1.5])
def test_a_full_stack_is_a_spec_error(innermost: object) -> None:
    outcomes: list[str] = []

    def dive() -> None:
        with contextlib.suppress(RecursionError):
            dive()
        if len(outcomes) < 400:
            try:
                outcomes.append(canonical_json(nested(90, innermost))[:3])
            except (SpecError, RecursionError) as error:
                outcomes.append(type(error).__name__)

    dive()
    # Where not even a few calls are left, nothing can be done about it.
    assert set(outcomes[FEW_CALLS:]) == {"SpecError", "[[["}


# Properties


@given(documents(scalars, storable_text))
def test_the_canonical_text_of_the_canonical_text_is_itself(value: object) -> None:
    text = canonical_json(value)
    assert canonical_json(parse_json(text)) == text
    assert canonical_json(parse_json(text.encode())) == text


@given(documents(scalars, storable_text), st.randoms())
def test_the_order_of_keys_does_not_matter(value: object, random: Any) -> None:
    def shuffled(value: object) -> object:
        if isinstance(value, dict):
            members = [(key, shuffled(member)) for key, member in value.items()]
            random.shuffle(members)
            return dict(members)
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    assert canonical_json(shuffled(value)) == canonical_json(value)


@given(documents(plain_scalars, plain_text))
def test_a_plain_document_is_written_as_json_dumps_does(value: object) -> None:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert canonical_json(value) == text


@given(documents(plain_scalars | finite_floats, storable_text))
def test_a_document_of_doubles_is_written_as_another_rfc_8785_implementation_does(value: Any) -> None:
    assert canonical_json(value).encode() == rfc8785.dumps(value)


@given(documents(plain_scalars, storable_text), finite_floats)
def test_the_fast_path_and_the_slow_one_agree(value: object, makes_it_slow: float) -> None:
    number = canonical_json(makes_it_slow)
    assert canonical_json([value, makes_it_slow]) == f"[{canonical_json(value)},{number}]"


def test_the_text_has_no_limit_from_python_on_digits() -> None:
    assert sys.get_int_max_str_digits() < 5000
    with pytest.raises(SpecError):
        canonical_json(10**5000)
    assert math.log10(int(canonical_json(10**399 + 1))) == 399
