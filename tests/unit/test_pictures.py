"""The pictures of the docs are drawn by scripts/draw-pictures from the text files beside them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "pictures"


def test_each_committed_picture_equals_what_the_script_draws(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "draw-pictures"
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, timeout=30)
    drawn = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text(encoding="utf-8") for path in PICTURES.glob("*.svg")}
    assert set(drawn) == {f"{path.stem}.svg" for path in PICTURES.glob("*.txt")}
    assert len(drawn) == 2
    assert committed == drawn, "run scripts/draw-pictures and commit what it draws"
