"""Finds the line of standard error that says what failed.

If nothing catches an error, most interpreters print a trace. The last line of it says little: `Node.js v20.20.2`,
or `at Shop.main(Shop.java:7)`. The table says for each interpreter how its trace looks. A program may print
anything, so every pattern takes a time that is linear in the number of lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_LINE_CHARS = 1_000


@dataclass(frozen=True, slots=True)
class _Trace:
    """`reason` matches the line, in a group of this name. `needs` must match too: what else such a trace has.

    `first`: the first match counts, because what follows are causes. Otherwise the last one does: earlier ones are
    from errors that were caught and logged.
    """

    interpreter: str
    reason: re.Pattern[str]
    needs: re.Pattern[str] | None = None
    first: bool = False


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.MULTILINE)


_ENDS_WITH_NODE = _pattern(r"^Node\.js v\d\S*\Z")
# Of JavaScript, Java and C#: a frame, the number of frames left out, or what closes an object.
_ENDS_IN_FRAMES = _pattern(r"^(?:[ \t]+(?:at |\.\.\. \d+ )[^\n]*|[\]}][^\n]*)\Z")
_ENDS_IN_RUBY_FRAMES = _pattern(r"^\tfrom [^\n]+\Z")
_OF_PERL = (
    r"BEGIN failed--compilation aborted [^\n]*|Compilation failed in require [^\n]*"
    r"|Execution of [^\n]+ aborted due to compilation errors\.|[^\n]+ had compilation errors\."
    r"|\t[^\n]+ called at [^\n]+ line \d+[^\n]*|\t\.\.\.propagated at [^\n]+"
)

_TRACES = (
    _Trace("Python", _pattern(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n)*(?P<reason>\S.*)$")),
    _Trace(
        "Python",
        _pattern(
            r"^(?:  )?\+ Exception Group Traceback \(most recent call last\):\n"
            r"(?:  \|   .*\n)*  \| (?P<reason>\S.*)$"
        ),
    ),
    # The line of the source, a caret below it, and then the error.
    _Trace("Node", _pattern(r"^[ \t]*\^+[ \t]*\n+(?P<reason>\S.*)$"), _ENDS_WITH_NODE),
    _Trace("Node", _pattern(r"^(?P<reason>\w*Error\b.*)$"), _ENDS_WITH_NODE),
    _Trace("Deno", _pattern(r"^error: Uncaught (?:\(in promise\) )?(?P<reason>\S.*)$")),
    _Trace(
        "JavaScript", _pattern(r"^(?P<reason>[\w$.]*(?:Error|Exception)\b(?: \[\w+\])?:.*)$"), _ENDS_IN_FRAMES
    ),
    _Trace("Java", _pattern(r'^Exception in thread "[^"\n]*" (?P<reason>\S.*)$'), _ENDS_IN_FRAMES),
    _Trace("Java", _pattern(r"^(?P<reason>Error: Could not find or load main class .+)$")),
    _Trace(
        "Java",
        _pattern(r"^(?P<reason>\S+\.java:\d+: error: .+)$"),
        _pattern(r"^error: compilation failed\Z"),
        True,
    ),
    _Trace("C#", _pattern(r"^Unhandled [Ee]xception[.:] (?P<reason>\S.*)$")),
    _Trace(
        "Ruby", _pattern(r"^(?P<reason>\S.*:\d+:in .+ \([A-Z]\w*(?:::\w+)*\))$"), _ENDS_IN_RUBY_FRAMES, True
    ),
    _Trace("Ruby", _pattern(r"^(?P<reason>\S.*:\d+:in [^\n:]+: .+)$"), _ENDS_IN_RUBY_FRAMES, True),
    _Trace("Ruby", _pattern(r"^(?P<reason>\S+:\d+: syntax errors? .+)$"), None, True),
    _Trace("PHP", _pattern(r"^(?:PHP )?(?:Fatal|Parse) error: +(?:Uncaught )?(?P<reason>\S.*)$")),
    _Trace("PHP", _pattern(r"^Next (?P<reason>\S.*)$"), _pattern(r"^ *thrown in [^\n]+ on line \d+\Z")),
    _Trace(
        "Perl", _pattern(rf"^(?P<reason>\S.*)(?:\n(?:{_OF_PERL}))+\Z"), _pattern(rf"^(?:{_OF_PERL})\Z"), True
    ),
    _Trace("bash", _pattern(r"^(?P<reason>.+: line \d+: syntax error near .+)\n.+: line \d+: `.*'\Z")),
    _Trace("Go", _pattern(r"^(?P<reason>(?:panic|fatal error): .+)$"), _pattern(r"^goroutine \d+ .*\[")),
    _Trace("Rust", _pattern(r"^thread '[^'\n]*'(?: \(\d+\))? panicked at .+:\n(?P<reason>\S.*)$")),
)


def error_line(stderr: str) -> str:
    """The line that says what failed: of the last trace, or else the last line. `stderr` is stripped."""
    shown = "\n".join(line[:MAX_LINE_CHARS] for line in stderr.split("\n"))
    found = [match for trace in _TRACES if (match := _match(trace, shown)) is not None]
    if not found:
        return stderr.rpartition("\n")[2].strip()
    return max(found, key=lambda match: match.start("reason"))["reason"].strip()


def _match(trace: _Trace, stderr: str) -> re.Match[str] | None:
    if trace.needs is not None and trace.needs.search(stderr) is None:
        return None
    if trace.first:
        return trace.reason.search(stderr)
    last = None
    for last in trace.reason.finditer(stderr):  # noqa: B007 (the last one is wanted)
        pass
    return last
