"""The payload of a Python task, as the call that it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork.spec import Spec
from reproq_prefork.tasks.call import NotACall, PythonCall, read_call

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(-(2**53), 2**53)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(values, max_size=3), st.dictionaries(st.text("abc", min_size=1), values, max_size=3))
def test_a_call_comes_back_as_it_was_enqueued(args: list[Any], kwargs: dict[str, Any]) -> None:
    call = read_call(Spec.python_task("shop.tasks.mail", args, kwargs).canonical)
    assert call == PythonCall("shop.tasks.mail", tuple(args), kwargs)


def test_numbers_are_unchanged_even_after_jsonb() -> None:
    call = read_call('{"v": 1, "task": "a.b", "args": [1.50, 2.0, 1' + "0" * 300 + ", 7]}")
    assert call.args == (1.5, 2.0, 1e300, 7)
    assert list(map(type, call.args)) == [float, float, float, int]


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ("[1]", "names no task"),
        ('{"v": 1, "task": 3}', "names no task"),
        ('{"v": 2, "task": "a.b"}', "is of version 2"),
        ('{"v": true, "task": "a.b"}', "is of version True"),
        ('{"v": 1, "task": "a.b", "args": {}}', "must be a list"),
        ('{"v": 1, "task": "a.b", "kwargs": []}', "must be a list, and its kwargs an object"),
        (json.dumps({"v": 1, "task": "a.b", "args": [10**500]}), "cannot be read: args"),
    ],
)
def test_a_payload_that_is_not_a_call_is_refused_with_the_reason(payload: str, why: str) -> None:
    with pytest.raises(NotACall, match=why):
        read_call(payload)
