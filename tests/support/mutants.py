"""Take one guard out of the package at a time, and see that a test fails: `python -m tests.support.mutants`.

All of it happens in build/mutants: a copy of the checkout, and an interpreter that imports the package from there.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.builds import Change
from tests.support.checkout import CHECKOUT
from tests.support.guard import Guard
from tests.support.guards import GUARDS

PLACE = CHECKOUT / "build" / "mutants"
TESTS_TIMEOUT_S = 600
TESTS_FAILED = 1  # pytest's exit status


class Copy:
    """A copy of the checkout in which one guard at a time is missing."""

    def __init__(self, place: Path) -> None:
        self.tree = place / "tree"
        self.log = place / "pytest.log"
        self.python = place / "venv" / "bin" / "python"
        shutil.rmtree(place, ignore_errors=True)
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        names = subprocess.run(listed, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
        for name in filter(None, names.split("\0")):
            if (CHECKOUT / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(CHECKOUT / name, self.tree / name)
        self._make_interpreter(place / "venv")

    def _make_interpreter(self, directory: Path) -> None:
        """It has what this one has installed, and the package from the copy."""
        venv.create(directory, symlinks=True)
        installed = sysconfig.get_path("purelib")
        own = sysconfig.get_path("purelib", vars={"base": str(directory), "platbase": str(directory)})
        Path(own, "mutant.pth").write_text(f"{self.tree}\n{installed}\n")
        command = directory / "bin" / "reproq-prefork"
        command.write_text(
            f"#!{self.python}\nimport sys\nfrom reproq_prefork.cli import main\nsys.exit(main())\n"
        )
        command.chmod(0o755)

    def change(self, changes: Sequence[Change]) -> None:
        for change in changes:
            path = self.tree / "reproq_prefork" / change.file
            text = path.read_text()
            if text.count(change.old) != 1:
                raise SystemExit(f"{change.file} must have this exactly once: {change.old!r}")
            path.write_text(text.replace(change.old, change.new))

    def restore(self, changes: Sequence[Change]) -> None:
        for change in changes:
            shutil.copy2(
                CHECKOUT / "reproq_prefork" / change.file, self.tree / "reproq_prefork" / change.file
            )

    def run(self, tests: Sequence[str]) -> int:
        """Pytest's exit status; -1 where it took too long."""
        command = [str(self.python), "-B", "-m", "pytest", "-q", "-x", "-m", "", *tests]
        command.append("--hypothesis-profile=first-failure")
        with self.log.open("wb") as log:
            try:
                done = subprocess.run(
                    command, cwd=self.tree, stdout=log, stderr=log, timeout=TESTS_TIMEOUT_S, check=False
                )
            except subprocess.TimeoutExpired:
                return -1
        return done.returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only the guards whose names have one of these words")
    words = parser.parse_args().words
    guards = [each for each in GUARDS if not words or any(word in each.name for word in words)]
    copy = Copy(PLACE)
    if copy.run(sorted({test for guard in guards for test in guard.tests})) != 0:
        print(
            f"The tests do not pass with all guards in place; their output is in {copy.log}", file=sys.stderr
        )
        return 2
    unseen = [guard for guard in guards if not _is_seen(copy, guard)]
    print(f"{len(guards)} guards taken out one at a time: {len(unseen)} not missed by any test")
    return 1 if unseen or not guards else 0


def _is_seen(copy: Copy, guard: Guard) -> bool:
    began = time.monotonic()
    copy.change(guard.changes)
    try:
        status = copy.run(guard.tests)
    finally:
        copy.restore(guard.changes)
    verdict = "seen" if status == TESTS_FAILED else f"NOT SEEN (pytest's exit status {status})"
    print(f"{verdict:8} {guard.name} ({time.monotonic() - began:.0f} s)", flush=True)
    return status == TESTS_FAILED


if __name__ == "__main__":
    sys.exit(main())
