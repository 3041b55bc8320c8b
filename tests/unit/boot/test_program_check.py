"""What is wrong with the program of tasks is found before a start."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from reproq_prefork.boot.program_check import check_program
from reproq_prefork.errors import SettingsError
from reproq_prefork.settings import Settings
from tests.support.fakes.settings import resolved


def settings(directory: Path, **flags: str) -> Settings:
    made = resolved(
        flags={"python_path": sys.executable, **flags}, environ={"PATH": os.environ["PATH"]}
    ).settings
    return replace(made, chdir=directory)


def problem(directory: Path, **flags: str) -> str:
    with pytest.raises(SettingsError) as caught:
        check_program(settings(directory, **flags))
    (sentence,) = caught.value.problems
    return sentence


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "greet.py").write_text("raise SystemExit('the check must not run it')")
    (tmp_path / "plain.py").touch()
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "__init__.py").write_text("print('imported')")
    (tmp_path / "shop" / "greet.py").touch()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "__init__.py").touch()
    (tmp_path / "runs" / "__main__.py").touch()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").write_text("1 / 0")
    return tmp_path


@pytest.mark.parametrize("module", ["greet", "shop.greet", "runs", "json.tool"])
def test_a_module_that_python_can_run_is_accepted_and_not_run(directory: Path, module: str) -> None:
    check_program(settings(directory, executor_module=module))


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("greeet", "there is no such module; did you mean greet?"),
        ("nowhere_at_all", "there is no such module."),
        ("shop.greeet", "there is no such module."),
        ("nowhere_at_all.greet", "ModuleNotFoundError: No module named 'nowhere_at_all'."),
        ("plain.more", "while trying to find 'plain.more'"),
        ("shop", "it is a package without a module __main__, so it cannot be run."),
        ("broken.greet", "a package around it cannot be imported: ZeroDivisionError: division by zero."),
    ],
)
def test_a_module_that_cannot_be_run_is_refused_with_the_reason(
    directory: Path, module: str, reason: str
) -> None:
    said = problem(directory, executor_module=module)
    assert said.startswith(f"--executor-module {module}: {sys.executable} cannot run it in {directory}: ")
    assert reason in said


def test_a_package_that_takes_too_long_is_refused(directory: Path) -> None:
    (directory / "broken" / "__init__.py").write_text("import time; time.sleep(60)")
    assert "within 0.9 s (--boot-timeout)" in problem(
        directory, executor_module="broken.greet", boot_timeout="1s"
    )


def test_a_program_that_is_not_there_is_refused(directory: Path) -> None:
    for program in ("no-such-program", "./no-such-program", "./greet.py", "/nowhere/at/all"):
        assert problem(directory, command=f"{program} --fast") == (
            f"The executor {program} is not a program that can be run: not found, or not executable."
        )
    assert "python9 is not a program" in problem(directory, executor_module="greet", python_path="python9")


def test_a_script_whose_interpreter_is_not_there_is_refused(directory: Path) -> None:
    script = directory / "run.sh"
    script.write_text("#!/nowhere/sh -e\n")
    script.chmod(0o755)
    assert "names the interpreter /nowhere/sh" in problem(directory, command="./run.sh")
    script.write_text("#!/bin/sh -e\n")
    check_program(settings(directory, command="./run.sh"))


def test_a_python_that_does_not_work_is_refused(directory: Path) -> None:
    python = directory / "python"
    python.write_text("#!/bin/sh\necho no libpython >&2; exit 127\n")
    python.chmod(0o755)
    said = problem(directory, executor_module="greet", python_path="./python")
    assert said.endswith("it ends with exit status 127: no libpython")


def test_what_is_not_python_is_not_asked(directory: Path) -> None:
    check_program(settings(directory, executor_module="greet", python_path="true"))
