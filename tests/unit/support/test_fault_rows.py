"""Each row of the fault list has a test that is found by its number."""

from __future__ import annotations

import re

from tests.support.checkout import CHECKOUT

FAULTS = CHECKOUT / "tests" / "faults"
ROWS = {*(f"{row:02}" for row in range(1, 46)), "07b", "48", "50"}


def test_every_row_has_a_test_of_its_number() -> None:
    found = {
        row
        for path in FAULTS.glob("test_*.py")
        for row in re.findall(r"^def test_(\d\db?)_", path.read_text(), re.MULTILINE)
    }
    assert found == ROWS
