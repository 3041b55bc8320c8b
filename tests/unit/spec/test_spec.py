import dataclasses
import hashlib
import pickle
from decimal import Decimal

import pytest

from reproq_prefork.errors import ReproqError
from reproq_prefork.spec import Spec, spec_hash
from reproq_prefork.spec.canonical import canonical_json
from reproq_prefork.spec.parse import parse_json
from reproq_prefork.spec.rules import SpecError

EXAMPLE = {
    "v": 1,
    "task": "shop.tasks.send_invoice",
    "args": [1842],
    "kwargs": {"to": "zoé@example.org", "copies": 2},
}
EXAMPLE_CANONICAL = (
    '{"args":[1842],"kwargs":{"copies":2,"to":"zoé@example.org"},"task":"shop.tasks.send_invoice","v":1}'
)


def test_the_hash_is_the_sha_256_of_the_canonical_text_in_utf_8() -> None:
    assert canonical_json(EXAMPLE) == EXAMPLE_CANONICAL
    assert spec_hash(EXAMPLE) == hashlib.sha256(EXAMPLE_CANONICAL.encode("utf-8")).hexdigest()


def test_the_hash_of_the_example_never_changes() -> None:
    assert spec_hash(EXAMPLE) == "8c79f23d1d9c8e93a9cc7b9fae8e20c22489585c4f0d31ca737cab06842128d2"


def test_a_spec_has_its_payload_its_text_and_its_hash() -> None:
    spec = Spec.of(EXAMPLE)
    assert spec.payload is EXAMPLE
    assert spec.canonical == EXAMPLE_CANONICAL
    assert spec.hash == spec_hash(EXAMPLE)


def test_a_parsed_spec_equals_the_written_one() -> None:
    text = (
        '{"kwargs": {"copies": 2.0, "to": "zo\\u00e9@example.org"}, "args": [1842], "v": 1e0, "task": "%s"}'
    )
    assert Spec.parse(text % "shop.tasks.send_invoice") == Spec.of(EXAMPLE)
    assert Spec.parse(EXAMPLE_CANONICAL.encode()).payload == EXAMPLE


def test_specs_are_equal_by_hash_alone() -> None:
    one, same, other = Spec.of([1, 10**22]), Spec.of((Decimal("1.0"), 1e22)), Spec.of([2])
    assert one == same
    assert len({one, same, other}) == 2
    assert Spec.of(1) != Spec.of(True)


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Spec.of(1).hash = "0" * 64  # type: ignore[misc]


def test_a_spec_does_not_show_its_arguments() -> None:
    assert "secret" not in repr(Spec.of({"kwargs": {"password": "secret"}}))


def test_a_python_task_is_its_path_and_its_arguments() -> None:
    kwargs = {"copies": 2, "to": "zoé@example.org"}
    assert Spec.python_task("shop.tasks.send_invoice", (1842,), kwargs) == Spec.of(EXAMPLE)
    assert Spec.python_task("a.b", [], {}).canonical == '{"args":[],"kwargs":{},"task":"a.b","v":1}'


def test_a_python_task_does_not_share_its_arguments() -> None:
    args: list[object] = [1]
    spec = Spec.python_task("a.b", args, {})
    args.append(2)
    assert spec.payload == parse_json(spec.canonical)


def test_arguments_that_are_not_json_are_refused_by_path() -> None:
    with pytest.raises(SpecError, match=r"^args\[1\]\.name: a set has no form in JSON"):
        Spec.python_task("a.b", [0, {"name": {1}}], {})
    with pytest.raises(SpecError, match=r"^kwargs\.x: NaN"):
        Spec.python_task("a.b", [], {"x": float("nan")})
    with pytest.raises(SpecError, match=r"^kwargs: a key is of type int"):
        Spec.python_task("a.b", [], {1: 2})  # type: ignore[dict-item]


def test_one_string_is_not_a_list_of_arguments() -> None:
    with pytest.raises(SpecError, match=r"^args: a list of arguments is needed"):
        Spec.python_task("a.b", "abc", {})


@pytest.mark.parametrize("task", ["", None, 1])
def test_a_python_task_needs_a_path(task: str) -> None:
    with pytest.raises(SpecError, match=r"^task: a function's dotted path is needed"):
        Spec.python_task(task, [], {})


def test_a_spec_error_is_a_reproq_error_and_a_value_error_and_can_be_pickled() -> None:
    error = SpecError("args[0]", "it is wrong")
    assert isinstance(error, ReproqError)
    assert isinstance(error, ValueError)
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.path, copy.why) == ("args[0]: it is wrong", "args[0]", "it is wrong")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"args": [{"name": b""}]}, "args[0].name"),
        (b"", "$"),
        ([[b""]], "[0][0]"),
        ({"a b": {"": {"1": {"$": {"naïve": b""}}}}}, '["a b"][""]["1"]["$"].naïve'),
        ({'"': {"😀": b""}}, '["\\""]["\\ud83d\\ude00"]'),
        ({"k" * 1000: b""}, '["' + "k" * 60 + '..."]'),
    ],
)
def test_a_path_is_written_as_a_person_would(value: object, path: str) -> None:
    with pytest.raises(SpecError) as caught:
        Spec.of(value)
    assert caught.value.path == path
