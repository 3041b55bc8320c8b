"""The benchmarks run; what they measure is not a test's business."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.support.checkout import CHECKOUT


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1", *arguments]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("measurement", "lines"),
    [
        (
            "drain",
            [
                "reproq-prefork inline, 1 worker",
                "reproq-prefork fork, 1 worker",
                "bare psycopg loop, 1 client",
            ],
        ),
        ("pick-up", ["reproq-prefork inline", "bare psycopg LISTEN loop"]),
        ("enqueue", ["reproq-prefork, by the API", "bare psycopg COPY of the same rows"]),
        ("scale", ["1k pending", "three queues of 100k", "the whole"]),
        ("recovery", ["reproq-prefork inline"]),
    ],
)
def test_a_measurement_prints_a_figure_in_every_line(measurement: str, lines: list[str]) -> None:
    # A drain of `scale` is looked at in tenths, and each has to take some time.
    share = "0.01" if measurement == "scale" else "0.003"
    done = benchmarks(measurement, "--workers", "1", "--share", share)
    assert done.returncode == 0, done.stderr
    for line in lines:
        assert any(line in printed for printed in done.stdout.splitlines()), (line, done.stdout)
    without_pgbench = shutil.which("pgbench") is None
    failed = [each for each in done.stdout.splitlines() if "failed:" in each]
    assert [each for each in failed if not (without_pgbench and "pgbench" in each)] == []


def test_an_unknown_name_is_refused_in_a_sentence() -> None:
    assert "there is no measurement dance" in benchmarks("dance").stderr
    assert "there is no peer nobody" in benchmarks("drain", "--peers", "nobody").stderr
