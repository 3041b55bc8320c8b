"""What importing the package costs, which each task that runs in Python pays for; and what it depends on."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest

import hatch_build
import reproq_prefork
from tests.support.checkout import CHECKOUT

TIMEOUT_S = 30


def modules_after(statement: str) -> set[str]:
    """What a new interpreter has imported after `statement`."""
    program = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
    )
    return set(done.stdout.split())


def beyond_the_standard_library(modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] not in sys.stdlib_module_names}


def test_the_package_imports_nothing_before_it_is_asked_for_a_name() -> None:
    imported = modules_after("import reproq_prefork") - modules_after("")
    assert beyond_the_standard_library(imported) == {"reproq_prefork"}
    assert "psycopg" in modules_after("from reproq_prefork import enqueue")


@pytest.mark.parametrize("name", reproq_prefork.__all__)
def test_the_package_has_and_lists_each_of_its_names(name: str) -> None:
    assert getattr(reproq_prefork, name) is not None
    assert name in dir(reproq_prefork)


def test_a_name_that_the_package_does_not_have_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        reproq_prefork.absent  # noqa: B018


def test_an_executor_imports_the_helper_and_nothing_else() -> None:
    imported = modules_after("import reproq_prefork.executor") - modules_after("")
    assert "psycopg" not in imported
    assert beyond_the_standard_library(imported) == {
        "reproq_prefork",
        "reproq_prefork.executor",
        "reproq_prefork.task_exceptions",
    }
    assert imported.isdisjoint({"argparse", "asyncio", "dataclasses", "inspect", "logging", "traceback"})


def test_the_oldest_dependencies_that_are_tested_are_the_oldest_that_are_allowed() -> None:
    root = CHECKOUT
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *extras["django"], *extras["embedded"], "psycopg-binary>=3.2.4"]
    allowed = dict(re.findall(r"^([a-z-]+)(?:\[binary\])?>=([\d.]+)", "\n".join(requirements), re.MULTILINE))
    tested = dict(
        re.findall(r"^([a-z-]+)==([\d.]+)$", (root / "constraints-oldest.txt").read_text(), re.MULTILINE)
    )
    assert {name: _padded(version) for name, version in tested.items()} == {
        name: _padded(version) for name, version in allowed.items()
    }
    assert allowed["psycopg-binary"] == allowed["psycopg"]


def _padded(version: str) -> list[int]:
    numbers = [int(number) for number in version.split(".")]
    return numbers + [0] * (3 - len(numbers))


def test_the_package_page_has_no_link_into_the_repository() -> None:
    page = hatch_build.package_page((CHECKOUT / "README.md").read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert [link for link in links if not link.startswith("https://")] == []
    assert "The glossary defines each of them." in page
    assert "![" not in page
    assert "A run is PENDING, then RUNNING" in page
    assert hatch_build.package_page("[a](https://example.org/x) [b](docs/b.md)").startswith(
        "[a](https://example.org/x) b\n"
    )


def test_the_classifiers_name_the_versions_that_are_tested() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    makefile = (CHECKOUT / "Makefile").read_text()
    named = {each.rpartition(" :: ")[2] for each in project["classifiers"] if " :: Python :: 3." in each}
    assert named == {"3.11", "3.12", "3.13"}
    assert all(version in makefile for version in named)
    djangos = {each.rpartition(" :: ")[2] for each in project["classifiers"] if " :: Django :: " in each}
    assert djangos == {"5.2", "6.0", "6.1"}
