"""What a stored path may lead to."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork import Task, task
from reproq_prefork.tasks.loader import NotAllowed, TaskNotFound, allowed_modules, load_task, split_path

segments = st.from_regex(r"[a-z_]{1,3}", fullmatch=True)
modules = st.lists(segments, min_size=1, max_size=4).map(".".join)


def is_task(found: object) -> bool:
    return isinstance(found, Task)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of modules that nobody has imported."""
    package = tmp_path / "shop_of_tests"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "tasks.py").write_text(
        "from reproq_prefork import task\nfrom shop_of_tests.private import secret\n"
        "@task\ndef mail(): pass\n\ndef helper(): pass\nmail_again = mail\n"
    )
    (package / "private.py").write_text("from reproq_prefork import task\n@task\ndef secret(): pass\n")
    (package / "tasks_evil.py").write_text("raise RuntimeError('it was imported')\n")
    (package / "broken.py").write_text("import absent_module\n")
    (package / "leaving.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop_of_tests"]:
        del sys.modules[name]


def load(path: str, *allowed: str) -> object:
    return load_task(path, is_allowed=allowed_modules(allowed), is_task=is_task)


def refusal_of(path: str, *allowed: str) -> str:
    with pytest.raises(NotAllowed) as caught:
        load(path, *allowed)
    return str(caught.value)


def test_a_task_of_an_allowed_module_is_found(shop: Path) -> None:
    for allowed in ("shop_of_tests.tasks", "shop_of_tests"):
        found = load("shop_of_tests.tasks.mail", allowed)
        assert isinstance(found, Task)
        assert found.path == "shop_of_tests.tasks.mail"


def test_a_module_that_is_not_allowed_is_not_even_imported(shop: Path) -> None:
    assert "not one of those that may hold tasks" in refusal_of(
        "shop_of_tests.tasks_evil.x", "shop_of_tests.tasks"
    )
    assert "shop_of_tests.tasks_evil" not in sys.modules
    assert "not one of those that may hold tasks" in refusal_of("os.system", "shop_of_tests")
    assert "not one of those that may hold tasks" in refusal_of("shop_of_tests.tasks.mail")


def test_a_path_that_is_not_a_task_is_refused(shop: Path) -> None:
    for name in ("helper", "task", "__name__", "__builtins__"):
        assert "is not a task" in refusal_of(f"shop_of_tests.tasks.{name}", "shop_of_tests")


def test_a_task_imported_by_an_allowed_module_belongs_to_its_own_module(shop: Path) -> None:
    refusal = refusal_of("shop_of_tests.tasks.secret", "shop_of_tests.tasks")
    assert 'is a task of the module "shop_of_tests.private"' in refusal
    assert load("shop_of_tests.tasks.secret", "shop_of_tests.tasks", "shop_of_tests.private")


@pytest.mark.parametrize(
    ("module", "reason", "cause"),
    [
        ("broken", "ModuleNotFoundError: No module named 'absent_module'", ModuleNotFoundError),
        ("leaving", "SystemExit: 3", SystemExit),
        ("absent", "ModuleNotFoundError: No module named 'shop_of_tests.absent'", ModuleNotFoundError),
    ],
)
def test_a_module_that_cannot_be_imported_is_not_refused_for_ever(
    shop: Path, module: str, reason: str, cause: type[BaseException]
) -> None:
    with pytest.raises(TaskNotFound) as caught:
        load(f"shop_of_tests.{module}.mail", "shop_of_tests")
    assert str(caught.value) == f"the module shop_of_tests.{module} cannot be imported: {reason}"
    assert isinstance(caught.value.__cause__, cause)


def test_a_name_that_is_not_there_may_be_there_after_a_deploy(shop: Path) -> None:
    with pytest.raises(TaskNotFound, match=r"the module shop_of_tests\.tasks has no absent"):
        load("shop_of_tests.tasks.absent", "shop_of_tests")


@pytest.mark.parametrize(
    "path",
    ["", "mail", ".mail", "shop.", "shop..mail", "shop.mail()", "shop.class", "a.b-c", "a/b.c", "a.b\n"],
)
def test_text_that_is_not_a_dotted_path_is_refused(path: str) -> None:
    assert "is not the dotted path of a task" in refusal_of(path, "shop", "a")


@given(st.text(max_size=30))
def test_any_text_is_either_a_path_of_identifiers_or_refused(path: str) -> None:
    try:
        module, name = split_path(path)
    except NotAllowed:
        return
    assert f"{module}.{name}" == path
    assert all(segment.isidentifier() for segment in path.split("."))


@given(modules, st.lists(modules, max_size=4))
def test_a_module_is_allowed_if_and_only_if_it_is_listed_or_below_one(
    module: str, allowed: list[str]
) -> None:
    expected = any(module == one or module.startswith(f"{one}.") for one in allowed)
    assert allowed_modules(allowed)(module) is expected


def test_a_function_without_a_module_belongs_to_no_module(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mail() -> None: ...

    module = ModuleType("shop_of_tests.made_up")
    mail.__qualname__, mail.__module__ = "mail", module.__name__
    module.mail = task(mail)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert load("shop_of_tests.made_up.mail", "shop_of_tests")
    mail.__module__ = None  # type: ignore[assignment]
    assert "not one of those that may hold tasks here" in refusal_of(
        "shop_of_tests.made_up.mail", "shop_of_tests"
    )
