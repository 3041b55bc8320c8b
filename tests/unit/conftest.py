from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.unix.children import Pipe


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()
