"""The lists of guards that are taken out one at a time: each line is there to be changed, and each test to run.

A guard whose line has moved to another file would end `make mutants` halfway, and nobody runs that each day.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos import builds
from tests.chaos.builds import PACKAGE, Change
from tests.support.guards import GUARDS

CHECKOUT = Path(__file__).parents[2]
CHANGES = {guard.name: guard.changes for guard in GUARDS} | dict(builds.GUARDS)


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_the_source_of_each_guard_is_in_its_file_exactly_once(changes: Sequence[Change]) -> None:
    for change in changes:
        assert (PACKAGE / change.file).read_text().count(change.old) == 1, change
        assert change.new != change.old


@pytest.mark.parametrize("test", sorted({test for guard in GUARDS for test in guard.tests}))
def test_the_tests_of_each_guard_exist(test: str) -> None:
    file, _, name = test.partition("::")
    tree = ast.parse((CHECKOUT / file).read_text())
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert not name or name.partition("[")[0].rpartition("::")[2] in functions


def test_no_two_guards_have_one_name() -> None:
    assert len({guard.name for guard in GUARDS}) == len(GUARDS)
