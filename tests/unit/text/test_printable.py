from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork.text.printable import MAX_QUOTED_CHARS, printable, quoted

ANY_TEXT = st.text(st.characters(categories=None))


@given(ANY_TEXT)
def test_printable_text_stays_on_its_line_and_can_be_encoded(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    shown.encode()


@given(ANY_TEXT.filter(str.isprintable))
def test_text_that_is_printable_is_left_alone(text: str) -> None:
    assert printable(text) == text


def test_what_is_not_printable_becomes_an_escape() -> None:
    assert printable("a\nb\x1b[31m\x85\u2028\u202e\ud800") == r"a\nb\x1b[31m\x85\u2028\u202e\ud800"


def test_a_quotation_is_bounded() -> None:
    assert quoted("eight") == '"eight"'
    assert quoted("x" * 10_000) == f'"{"x" * MAX_QUOTED_CHARS}…"'
