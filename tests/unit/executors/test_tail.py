from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork.executors.tail import Tail


@given(st.integers(1, 50), st.lists(st.binary(max_size=120), max_size=30))
def test_a_tail_is_the_end_of_everything_written_to_it(limit: int, chunks: list[bytes]) -> None:
    tail = Tail(limit)
    for chunk in chunks:
        tail.feed(chunk)
    everything = b"".join(chunks)
    assert tail.bytes() == everything[-limit:]
    assert tail.total == len(everything)
    assert tail.is_whole == (len(everything) <= limit)


def test_memory_stays_bounded_however_much_comes() -> None:
    limit, chunk = 1000, b"x" * 700
    tail = Tail(limit)
    most = 0
    for _ in range(10_000):
        tail.feed(chunk)
        most = max(most, sys.getsizeof(tail._kept))
    assert tail.total == 7_000_000
    assert most < 4 * (2 * limit + len(chunk))
