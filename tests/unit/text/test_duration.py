from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork.text.duration import MAX_DURATION_S, format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("1", 1.0),
        ("0.5", 0.5),
        ("0", 0.0),
        ("0s", 0.0),
        ("30s", 30.0),
        ("2m", 120.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("7d", 604_800.0),
        ("1d2h3m4s5ms", 93_784.005),
        (" 25s ", 25.0),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "soon",
        "5 s",
        "-1",
        "1e3",
        "nan",
        "inf",
        ".5",
        "1.",
        "s",
        "30m1h",
        "1m1m",
        "1y",
        "5S",
        "٣s",
        "1_000",
    ],
)
def test_anything_else_is_refused_with_examples(text: str) -> None:
    with pytest.raises(
        ValueError, match=r'^".*" is not a duration; give one such as 500ms, 30s, .*plain seconds$'
    ):
        parse_duration(text)


def test_a_duration_has_an_upper_limit() -> None:
    assert parse_duration("3650d") == MAX_DURATION_S
    with pytest.raises(ValueError, match=r'^"3651d" is too long; the limit is 3650d$'):
        parse_duration("3651d")
    with pytest.raises(ValueError, match="is too long"):
        parse_duration("9" * 5_000)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.0001, "0.0001s"),
        (0.5, "500ms"),
        (1.0, "1s"),
        (1.5, "1.5s"),
        (60.0, "1m"),
        (90.0, "1m30s"),
        (3600.0, "1h"),
        (5400.0, "1h30m"),
        (604_800.0, "7d"),
        (864_000.0, "10d"),
    ],
)
def test_a_duration_is_shown_in_its_largest_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(min_value=0, max_value=MAX_DURATION_S))
def test_a_duration_comes_back_from_its_text(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds
