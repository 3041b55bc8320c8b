"""Forged histories of a storm, for the tests of its checker: how one is changed in a single place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from tests.chaos.checker import violations
from tests.chaos.history import Edge, History

T = TypeVar("T")


def with_one(values: Sequence[T], is_it: Callable[[T], bool], **changes: Any) -> tuple[T, ...]:
    """The same with the one for which `is_it` holds changed."""
    assert sum(map(is_it, values)) == 1
    return tuple(replace(value, **changes) if is_it(value) else value for value in values)  # type: ignore[type-var]


def without(values: Sequence[T], is_it: Callable[[T], bool]) -> tuple[T, ...]:
    assert any(map(is_it, values))
    return tuple(value for value in values if not is_it(value))


def is_end_of(run_id: int) -> Callable[[Edge], bool]:
    return lambda edge: edge.run_id == run_id and edge.new in ("SUCCESSFUL", "FAILED", "CANCELLED")


def is_claim_of(run_id: int, claim: int = 1) -> Callable[[Edge], bool]:
    return lambda edge: (edge.run_id, edge.new, edge.claim) == (run_id, "RUNNING", claim)


def broken_rules(history: History) -> set[str]:
    return {violation.rule for violation in violations(history)}
