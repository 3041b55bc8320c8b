"""The code blocks of a page of the docs, which tests run as they stand."""

from __future__ import annotations

import re


def code_blocks(page: str, language: str) -> list[str]:
    """The text of each block of this language, in the order of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
