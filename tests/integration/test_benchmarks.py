"""The benchmarks run; what they measure is not a test's business."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parent.parent.parent


def test_the_benchmarks_print_a_table_with_every_measurement() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--rounds", "1", "--runs", "4", "--pick-ups", "2"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^no-op programs, [124] workers? +[\d,]+", done.stdout, re.MULTILINE)) == 3
    assert len(re.findall(r"^finish \+ claim alone, [124] clients? +[\d,]+", done.stdout, re.MULTILINE)) == 3
    assert re.search(r"^INSERT to claim +[\d.]+ +[\d.]+ +[\d.]+$", done.stdout, re.MULTILINE)
