"""Text from anywhere, made safe to show on one line of a terminal or a log."""

from __future__ import annotations

MAX_QUOTED_CHARS = 80


def printable(text: str) -> str:
    r"""`text` with everything that is not printable written as an escape (`\n`, `\x1b`, `\u2028`, `\ud800`).

    What is left cannot end a line, move a cursor, reorder the text around it, or fail to encode. It is a
    rule for showing, not for storing: a backslash that was there before stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def quoted(text: str, max_chars: int = MAX_QUOTED_CHARS) -> str:
    """`text` in double quotes, printable and of bounded length, for use in a sentence."""
    if len(text) > max_chars:
        text = text[:max_chars] + "…"
    return f'"{printable(text)}"'
