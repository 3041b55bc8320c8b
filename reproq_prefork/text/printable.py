"""Makes any text safe to show on one line of a terminal or a log."""

from __future__ import annotations

MAX_QUOTED_CHARS = 80


def printable(text: str) -> str:
    r"""`text` with all unprintable characters written as escapes (`\n`, `\x1b`, `\u2028`, `\ud800`).

    The result cannot end a line, move a cursor, reorder the text around it, or fail to encode. It is for showing,
    not for storing: a backslash in the text is not escaped.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def quoted(text: str, max_chars: int = MAX_QUOTED_CHARS) -> str:
    """`text` in double quotes, printable and of bounded length, for use in a sentence."""
    if len(text) > max_chars:
        text = text[:max_chars] + "…"
    return f'"{printable(text)}"'
