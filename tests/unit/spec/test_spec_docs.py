"""docs/spec-hash.md and its vectors are a promise to producers in other languages: all of it is run here."""

import hashlib
import json
import random
import re
import shutil
import struct
import subprocess
import sys
from typing import Any

import pytest

from reproq_prefork.spec import Spec, spec_hash
from reproq_prefork.spec.canonical import canonical_json
from reproq_prefork.spec.parse import parse_json
from reproq_prefork.spec.rules import SpecError
from tests.support.checkout import CHECKOUT
from tests.support.pages import code_blocks

DOCS = CHECKOUT / "docs"
PAGE = (DOCS / "spec-hash.md").read_text(encoding="utf-8")
VECTORS = json.loads((DOCS / "spec-hash-vectors.json").read_text(encoding="utf-8"))
TIMEOUT_S = 30

accepted = pytest.mark.parametrize("vector", VECTORS["accepted"], ids=lambda vector: vector["name"])
needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not on this machine")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not on this machine")
refused = pytest.mark.parametrize("vector", VECTORS["refused"], ids=lambda vector: vector["name"])


def block(language: str, number: int = 0) -> str:
    """The text of the page's code block of that language."""
    return code_blocks(PAGE, language)[number]


def output_of(command: list[str], program: str, stdin: str = "") -> str:
    done = subprocess.run(
        [*command, program],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_plain(value: object) -> bool:
    match value:
        case bool() | str() | None:
            return True
        case int():
            return abs(value) < 2**53
        case list():
            return all(map(is_plain, value))
        case dict():
            return all(max(key, default="") <= "\uffff" and is_plain(value[key]) for key in value)
    return False


def json_parse_rounds(vector: dict[str, Any]) -> bool:
    """Whether holding all numbers in doubles, as `JSON.parse` does, makes another document of it."""
    try:
        text = canonical_json(json.loads(vector["json"], parse_int=float))
        return text != str(vector["canonical"])
    except SpecError:
        return True


@accepted
def test_an_accepted_vector_has_its_canonical_text_and_its_hash(vector: dict[str, Any]) -> None:
    spec = Spec.parse(vector["json"])
    assert (spec.canonical, spec.hash) == (vector["canonical"], vector["sha256"])
    assert Spec.parse(vector["canonical"]) == spec


@accepted
def test_the_hash_of_a_vector_is_its_sha_256_and_its_plain_flag_is_right(vector: dict[str, Any]) -> None:
    assert hashlib.sha256(vector["canonical"].encode("utf-8")).hexdigest() == vector["sha256"]
    value = json.loads(vector["json"])
    # `-0` is read as the integer 0, and written as such.
    assert vector["plain"] == (is_plain(value) and "-0" not in vector["json"])
    if vector["plain"]:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert text == vector["canonical"]


@refused
def test_a_refused_vector_is_refused_with_its_path_and_its_message(vector: dict[str, Any]) -> None:
    with pytest.raises(SpecError) as caught:
        Spec.parse(vector["json"])
    assert (caught.value.path, caught.value.why) == (vector["path"], vector["why"])


def test_the_vectors_have_one_name_each() -> None:
    names = [vector["name"] for vector in VECTORS["accepted"] + VECTORS["refused"]]
    assert len(names) == len(set(names)) > 40


def test_the_example_of_the_page_is_true() -> None:
    text, name = block("text", 0).rstrip("\n"), block("text", 1).rstrip("\n")
    assert canonical_json(parse_json(block("json"))) == text
    assert spec_hash(parse_json(block("json"))) == name
    assert f"{len(text)} characters, {len(text.encode())} bytes" in PAGE


def test_the_table_of_spellings_is_true() -> None:
    rows = re.findall(r"^\| (`[-0-9].*?) \| `(.*?)` \|$", PAGE, re.MULTILINE)
    assert len(rows) == 7
    for spellings, text in rows:
        for spelling in re.findall(r"`(.*?)`", spellings):
            assert canonical_json(parse_json(spelling)) == text


def test_the_python_producer_computes_the_hash_of_the_example() -> None:
    assert output_of([sys.executable, "-c"], block("python")) == block("text", 1)


@needs_jq
def test_the_shell_producer_computes_the_hash_of_the_example() -> None:
    assert output_of(["sh", "-c"], block("sh")) == block("text", 1)


@needs_jq
def test_the_shell_producer_computes_every_plain_vector_but_u_007f() -> None:
    pipeline = re.sub(r"^payload=.*?\nprintf '%s' \"\$payload\"", "cat", block("sh"), flags=re.DOTALL)
    assert pipeline.startswith("cat | jq")
    for vector in VECTORS["accepted"]:
        if vector["plain"] and "\x7f" not in vector["canonical"]:
            assert output_of(["sh", "-c"], pipeline, vector["json"]).strip() == vector["sha256"], vector[
                "name"
            ]


@needs_node
def test_the_javascript_producer_computes_the_hash_of_the_example() -> None:
    assert output_of(["node", "-e"], block("js")) == block("text", 1)


def javascript_canonical(reader: str, texts: list[str]) -> list[str]:
    """What the page's `canonical` makes of each text, after `reader` has read it."""
    program = block("js") + (
        'for (const text of JSON.parse(require("node:fs").readFileSync(0, "utf-8")))'
        f"  console.log(JSON.stringify(canonical(({reader})(text))));"
    )
    lines = output_of(["node", "-e"], program, json.dumps(texts)).split("\n")
    return [json.loads(line) for line in lines[1:-1]]


@needs_node
def test_the_javascript_producer_computes_every_vector_that_json_parse_does_not_round() -> None:
    vectors = [vector for vector in VECTORS["accepted"] if not json_parse_rounds(vector)]
    assert len(vectors) > 15
    texts = javascript_canonical("JSON.parse", [vector["json"] for vector in vectors])
    assert texts == [vector["canonical"] for vector in vectors]


@needs_node
def test_the_javascript_producer_and_ours_agree_on_doubles() -> None:
    chance = random.Random(8785)
    bits = [chance.randbytes(8) for _ in range(5_000)]
    doubles = [value for (value,) in map(struct.Struct(">d").unpack, bits) if value - value == 0]
    assert javascript_canonical("Number", list(map(repr, doubles))) == list(map(canonical_json, doubles))


@needs_node
def test_the_javascript_producer_and_ours_agree_on_big_integers() -> None:
    chance = random.Random(8785)
    integers = [chance.randrange(10**17) * 10 ** chance.randrange(40) for _ in range(2_000)]
    integers += [
        sign * (base + near) for sign in (1, -1) for base in (2**53, 10**21, 10**22) for near in (-1, 0, 1)
    ]
    assert javascript_canonical("BigInt", list(map(str, integers))) == list(map(canonical_json, integers))
