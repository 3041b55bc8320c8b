"""`make help` is where a newcomer begins: it lists every target, in the order in which they are used."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.support.checkout import CHECKOUT


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_help_lists_every_target_in_the_order_of_use() -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    done = subprocess.run(
        ["make", "help"], cwd=CHECKOUT, capture_output=True, text=True, timeout=30, check=True
    )
    listed = re.findall(r"^  make (\S+) +\S", done.stdout, re.MULTILINE)
    assert listed == phony.split()
    assert listed[:6] == ["install", "unit", "test", "check", "format", "demo"]
    assert listed[-2:] == ["clean", "help"]
