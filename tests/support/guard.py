"""A guard of the code, and how it is taken out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.chaos.builds import Change


@dataclass(frozen=True, slots=True)
class Guard:
    """`changes` take it out; at least one of `tests` (arguments of pytest) must fail then."""

    name: str
    changes: Sequence[Change]
    tests: Sequence[str]
