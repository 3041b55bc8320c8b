"""A test module can be moved, renamed or split without looking at any other: nothing imports from one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.checkout import CHECKOUT

# Found in the text, and not in the syntax tree: some tests write programs that import too.
_IMPORT = re.compile(
    r"^\s*(?:from\s+(?P<package>[\w.]+)\s+import\s+(?P<names>\([^)]*\)|.*)|import\s+(?P<modules>.*))$",
    re.MULTILINE,
)
_TEST_MODULE = re.compile(r"(?:^|\.)(?:test_\w+|conftest)(?:\.|$)")


def imports_from_tests(text: str) -> Iterator[str]:
    """The test modules and conftests that a file imports, or imports from."""
    for found in _IMPORT.finditer(text):
        package, names = found["package"], found["names"] or found["modules"]
        for name in re.findall(r"[\w.]+", names):
            path = f"{package}.{name}" if package else name
            # What other packages call `test_…` may be a function.
            if path.startswith(("tests.", ".")) and _TEST_MODULE.search(path):
                yield path


def test_nothing_imports_from_a_test_module() -> None:
    folders = ("tests", "benchmarks", "examples", "reproq_prefork")
    files = [path for folder in folders for path in (CHECKOUT / folder).rglob("*.py")]
    found = {
        str(path.relative_to(CHECKOUT)): imported
        for path in files
        if path != Path(__file__) and (imported := list(imports_from_tests(path.read_text(encoding="utf-8"))))
    }
    assert files
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "from tests.unit.worker.test_loop import RUN",
        "    from tests.django.conftest import Workers",
        "from tests.unit import children, test_worker",
        "from tests.unit import (\n    children,\n    test_worker,\n)",
        "from .test_worker import RUN",
        "from . import test_worker",
        "import tests.unit.worker.test_loop",
        "import tests.unit.worker.test_loop as worker",
    ],
)
def test_an_import_from_a_test_module_is_found(line: str) -> None:
    assert list(imports_from_tests(f"import os\n{line}\n"))


@pytest.mark.parametrize(
    "line",
    [
        "from tests.support.fakes.runs import RUN",
        "from django.test.utils import setup_test_environment",
        "from tests.support.rows import audit",
    ],
)
def test_an_import_from_another_module_is_allowed(line: str) -> None:
    assert not list(imports_from_tests(line))
