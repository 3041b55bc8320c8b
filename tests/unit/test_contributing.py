"""CONTRIBUTING.md names folders and files: they are there, and no folder is left out."""

from __future__ import annotations

import re

from tests.support.checkout import CHECKOUT

PAGE = (CHECKOUT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# Paths in code, and in the commands of the code blocks. `NNNN_name` stands for a file that a reader makes.
PATHS = set(re.findall(r"(?<![\w./])[\w.]+(?:/[\w.-]+)*/?(?=[`\s:)])", PAGE))


def folders_of(folder: str) -> set[str]:
    return {path.parent.name for path in (CHECKOUT / folder).glob("*/*.py")}


def test_every_folder_of_the_package_and_of_the_tests_has_a_line() -> None:
    assert set(re.findall(r"^\| `[├└] (\w+)/` \|", PAGE, re.MULTILINE)) == folders_of("reproq_prefork")
    # tests/programs is run by the tests, and has none.
    assert set(re.findall(r"^\| `tests/(\w+)/` \|", PAGE, re.MULTILINE)) == folders_of("tests") - {"programs"}


def test_every_path_is_there() -> None:
    named = {
        path
        for path in PATHS
        if "/" in path.rstrip("/") and "name." not in path and not path.startswith(".venv/")
    }
    assert len(named) > 30
    missing = [
        path
        for path in sorted(named)
        if not any((root / path).exists() for root in (CHECKOUT, CHECKOUT / "reproq_prefork"))
    ]
    assert not missing


def test_every_target_of_make_that_it_names_is_there() -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|\$ )make ([a-z0-9-]+)", PAGE))
    assert {"install", "unit", "check", "test", "faults"} <= named
    assert named <= set(re.findall(r"^([a-z0-9-]+):.*## ", makefile, re.MULTILINE))
