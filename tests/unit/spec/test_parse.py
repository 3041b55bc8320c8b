import contextlib
import json
import time
import tracemalloc
from decimal import Decimal, localcontext

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reproq_prefork.spec.parse import parse_json
from reproq_prefork.spec.rules import SpecError

FEW_CALLS = 4


def refused(text: str | bytes) -> SpecError:
    with pytest.raises(SpecError) as caught:
        parse_json(text)
    str(caught.value).encode("utf-8")
    return caught.value


def test_numbers_are_exact() -> None:
    assert parse_json("[9007199254740993, 0.1, -0.0]") == [9007199254740993, Decimal("0.1"), 0]
    assert repr(parse_json("[1.10, 1e22, -0, 12]")) == "[Decimal('1.10'), Decimal('1E+22'), 0, 12]"


def test_bytes_are_utf_8() -> None:
    assert parse_json('{"é": "😀"}'.encode()) == {"é": "😀"}


@pytest.mark.parametrize(
    "text", ["", " ", "{", "[1,]", "nul", "'a'", "[1] 2", '"\t"', "01", "+1", "1.", "{1:2}"]
)
def test_text_that_is_not_json_is_refused(text: str) -> None:
    assert refused(text).path == "$"
    assert refused(text).why.startswith("not JSON: ")


@pytest.mark.parametrize(
    "data", [b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"', '"a"'.encode("utf-16"), b'"\xe2\x82']
)
def test_bytes_that_are_not_utf_8_are_refused(data: bytes) -> None:
    assert refused(data).why.startswith("not UTF-8: ")


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinities_are_refused(name: str) -> None:
    assert str(refused(f'{{"args": [{{"x": {name}}}]}}')).startswith(f"args[0].x: {name} is not JSON")
    assert refused(name).path == "$"


def test_a_number_beyond_every_double_is_not_an_infinity() -> None:
    assert parse_json("1e309") == Decimal("1e309")


@pytest.mark.parametrize(
    "text",
    [
        "9" * 400,
        "-" + "9" * 400,
        "1e399",
        "1e-399",
        "1." + "0" * 5000,
        "0." + "0" * 5000 + "1e5000",
        "0e99999999",
    ],
)
def test_a_number_of_400_digits_is_accepted(text: str) -> None:
    assert parse_json(f"[{text}]") == [Decimal(text)]


@pytest.mark.parametrize(
    "text",
    [
        "1" + "0" * 400,
        "-1" + "0" * 400,
        "9" * 5000,
        "1e400",
        "1E+400",
        "1e-400",
        "1e131071",
        "1e999999999999999999999999",
        "-1e-999999999999999999999999",
        "1e" + "9" * 5000,
        "1." + "0" * 399 + "1",
    ],
)
def test_a_number_of_more_than_400_digits_is_refused(text: str) -> None:
    assert str(refused(f'{{"args": [0, {text}]}}')).startswith("args[1]: the number has more than 400 digits")


@pytest.mark.parametrize("text", ["0e999999999999999999999999", "-0.0e-" + "9" * 5000])
def test_a_zero_is_a_zero_whatever_its_exponent(text: str) -> None:
    assert parse_json(text) == 0


def test_zeros_before_an_exponent_are_only_zeros() -> None:
    assert parse_json("1e+" + "0" * 5000 + "2") == 100


def test_a_number_is_never_expanded() -> None:
    text = "[" + ",".join(["1e131071"] * 9000) + "]"
    tracemalloc.start()
    try:
        refused(text)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 100 * len(text)


def test_the_decimal_context_of_the_caller_does_not_matter() -> None:
    with localcontext() as context:
        context.prec, context.Emax = 2, 3
        context.clear_traps()
        assert parse_json("123456.789e3") == 123456789
        refused("1e9999999999999999999")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('{"a": 1, "a": 1}', "a"),
        ('{"a": [0, {"b": 1, "c": 2, "\\u0062": 3}]}', "a[1].b"),
        ('[{"a b": 1, "a b": 2}]', '[0]["a b"]'),
    ],
)
def test_a_duplicate_key_is_refused(text: str, path: str) -> None:
    assert refused(text).path == path
    assert refused(text).why == "the key is there more than once"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('"\\u0000"', "$"),
        ('{"args": [{"name": "a\\u0000"}]}', "args[0].name"),
        ('{"k": {"\\u0000": 1}}', 'k["\\u0000"]'),
    ],
)
def test_nul_is_refused(text: str, path: str) -> None:
    assert refused(text).path == path
    assert "U+0000" in refused(text).why


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ('"\\ud800"', "$"),
        ('["\\ude00\\ud83d"]', "[0]"),
        ('["\\uD83Dx"]', "[0]"),
        ('{"\\uDFFF": 1}', '["\\udfff"]'),
        ('["\ud83d"]', "[0]"),
        ('["\ud83d\ude00"]', "[0]"),
        ('["\ud83d\\ude00"]', "[0]"),
    ],
)
def test_a_lone_surrogate_is_refused(text: str, path: str) -> None:
    assert refused(text).path == path
    assert "lone surrogate" in refused(text).why


def test_a_pair_of_escaped_surrogates_is_one_character() -> None:
    assert parse_json('"\\ud83d\\ude00"') == "😀"
    assert parse_json('"\\\\u0000 \\\\ud800"') == "\\u0000 \\ud800"


def test_a_depth_of_100_is_accepted() -> None:
    parse_json("[" * 100 + "]" * 100)
    parse_json("[" + "[[]]," * 500 + "{}]")
    parse_json('"' + "[" * 5000 + '"')


@pytest.mark.parametrize("depth", [101, 500, 5_000, 300_000])
def test_more_depth_is_refused_at_its_first_path(depth: int) -> None:
    assert refused("[" * depth + "]" * depth).path == "[0]" * 100
    assert refused("[" * depth).why.startswith(("more than 100 arrays", "not JSON"))
    path = refused('{"x": [0, {}, "]},:[", ' + '{"\\u0061": ' * depth + "1" + "}" * depth + "]}").path
    assert path == "x[3]" + ".a" * 98


def test_the_first_offence_in_the_document_is_named() -> None:
    assert refused('{"b": [1, NaN], "a": 1e999}').path == "b[1]"
    assert refused('["\\ud800", {"a": 1, "a": NaN}, NaN]').path == "[0]"


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 90 + "]" * 90, id="deep"),
        pytest.param("[" * 900 + "]" * 900, id="too deep"),
        pytest.param("[" * 90 + '"' + '\\"' * 10_000, id="a string that stays open"),
        pytest.param('[[{"a": 1, "a": "\\ud800"}]]', id="two offences"),
    ],
)
def test_a_full_stack_is_a_spec_error(text: str) -> None:
    outcomes: list[str] = []
    started = time.monotonic()

    def dive() -> None:
        with contextlib.suppress(RecursionError):
            dive()
        if len(outcomes) < 150:
            try:
                parse_json(text)
                outcomes.append("read")
            except SpecError as error:
                outcomes.append(str(error))
            except RecursionError:
                outcomes.append("escaped")

    dive()
    # Where not even a few calls are left, nothing can be done about it.
    assert "escaped" not in outcomes[FEW_CALLS:]
    assert "$: Python's stack is too full to read it; parse from less deep" in outcomes
    # An alarm that meets a full stack is lost, so the time limit of the test may not be seen.
    assert time.monotonic() - started < 10


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 101 + '"' + '\\"' * 500_000, id="a string that stays open"),
        pytest.param("[" * 100_000 + '"' + '\\"' * 500_000, id="deep, and a string that stays open"),
        pytest.param("[" * 100_000 + '\\"' * 500_000, id="deep, and quotes without strings"),
        pytest.param('{"a":' * 200_000, id="deep objects"),
        pytest.param("1" * 1_000_000, id="a long integer"),
        pytest.param("1." + "1" * 1_000_000, id="a long fraction"),
        pytest.param("1e" + "1" * 1_000_000, id="a long exponent"),
    ],
)
def test_a_hostile_text_is_refused_in_time(text: str) -> None:
    refused(text)


@given(st.text(alphabet='[]{}:,"\\u0aEe+-.1 tnNI\ud800é'), st.integers(0, 110))
@example("NaN", 0)
def test_nothing_but_a_spec_error_ever_escapes(text: str, depth: int) -> None:
    with contextlib.suppress(SpecError):
        parse_json("[" * depth + text + "]" * depth)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(st.characters(exclude_characters="\x00", codec="utf-8")),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(alphabet="abé😀"), inner),
    ),
    st.booleans(),
)
def test_what_json_dumps_writes_is_read_back(value: object, ascii_only: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only)) == value
