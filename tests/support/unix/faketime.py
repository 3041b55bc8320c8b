"""Clocks that are off, by libfaketime: a process sees another wall clock, and the monotonic ones as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest


def clock(directory: Path, offset: str, *, name: str = "clock") -> Mapping[str, str]:
    """The environment of a process whose clock is off by `offset`, such as "+1h".

    Another offset, written into the file `name` of `directory`, makes the clock jump. Skips the test where
    libfaketime is missing.
    """
    (directory / name).write_text(offset)
    return {
        "LD_PRELOAD": _library(),
        "FAKETIME_TIMESTAMP_FILE": str(directory / name),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _library() -> str:
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        pytest.skip("libfaketime is not installed (the package faketime)")
    return str(found[0])
