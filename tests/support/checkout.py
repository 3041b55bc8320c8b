"""Where this checkout is: programs are started there, and pages, examples and migrations are read from it."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
