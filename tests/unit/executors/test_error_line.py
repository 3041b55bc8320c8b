"""What is named as the reason of a failure, of the output that interpreters really print."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reproq_prefork.executors.error_line import error_line
from reproq_prefork.executors.program_output import Output, outcome_of
from reproq_prefork.executors.tail import Tail
from reproq_prefork.model.outcome import Failure

SAMPLES = {
    "node": (
        "loading ...\n/app/a.js:2\nfunction f(){ x.go(); }\n                ^\n\n"
        "TypeError: x.go is not a function\n"
        "    at f (/app/a.js:2:17)\n    at node:internal/main/run_main_module:28:49\n\nNode.js v20.20.2",
        "TypeError: x.go is not a function",
    ),
    "node, with properties": (
        "node:internal/modules/cjs/loader:1210\n  throw err;\n  ^\n\nError: Cannot find module 'nope'\n"
        "Require stack:\n"
        "- /app/e.js\n    at Module._load (node:internal/modules/cjs/loader:1038:27) {\n"
        "  code: 'MODULE_NOT_FOUND',\n  requireStack: [ '/app/e.js' ]\n}\n\nNode.js v20.20.2",
        "Error: Cannot find module 'nope'",
    ),
    "node, with a cause": (
        '/app/j.js:1\nthrow new Error("outer")\n^\n\nError: outer\n    at Object.<anonymous> (/app/j.js:1:7) {\n'
        "  [cause]: Error: inner\n      at Object.<anonymous> (/app/j.js:1:34)\n}\n\nNode.js v20.20.2",
        "Error: outer",
    ),
    "node, after an error that was logged": (
        "Error: first\n    at f (/app/a.js:1:1)\n/app/a.js:9\nthrow e\n^\n\nRangeError: second\n"
        "    at f (/app/a.js:9:1)\n\nNode.js v22.1.0",
        "RangeError: second",
    ),
    "node 14": (
        "/app/a.js:2\nx.go();\n  ^\n\nTypeError: x.go is not a function\n    at f (/app/a.js:2:17)\n"
        "    at internal/main/run_main_module.js:17:47",
        "TypeError: x.go is not a function",
    ),
    "deno": (
        "error: Uncaught (in promise) TypeError: x.go is not a function\nx.go();\n  ^\n    at file:///app/a.ts:2:3",
        "TypeError: x.go is not a function",
    ),
    "python": (
        'Traceback (most recent call last):\n  File "/app/a.py", line 2, in <module>\n    1/0\n    ~^~\n'
        "ZeroDivisionError: division by zero\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        'Traceback (most recent call last):\n  File "/app/a.py", line 4, in <module>\n    raise X from e\n'
        "psycopg.errors.UniqueViolation: duplicate key\nDETAIL:  Key (id)=(1) already exists.",
        "psycopg.errors.UniqueViolation: duplicate key",
    ),
    "python, a group": (
        '+ Exception Group Traceback (most recent call last):\n  |   File "/app/e.py", line 1, in <module>\n'
        "  |     raise ExceptionGroup\n  | ExceptionGroup: g (2 sub-exceptions)\n"
        "  +-+---------------- 1 ----------------\n    | ValueError: a\n    +------------------------------------",
        "ExceptionGroup: g (2 sub-exceptions)",
    ),
    "ruby": (
        "/app/a.rb:2:in 'Integer#go': undefined method 'go' for nil (NoMethodError)\n\n  x.go\n   ^^^\n"
        "\tfrom /app/a.rb:4:in '<main>'",
        "/app/a.rb:2:in 'Integer#go': undefined method 'go' for nil (NoMethodError)",
    ),
    "ruby, with a cause": (
        "/app/a.rb:5:in `rescue in f': outer (RuntimeError)\n\tfrom /app/a.rb:2:in `f'\n"
        "/app/a.rb:3:in `f': inner (ArgumentError)\n\tfrom /app/a.rb:8:in `<main>'",
        "/app/a.rb:5:in `rescue in f': outer (RuntimeError)",
    ),
    "php": (
        "PHP Fatal error:  Uncaught RuntimeException: closed in /app/a.php:2\nStack trace:\n#0 {main}\n"
        "  thrown in /app/a.php on line 2",
        "RuntimeException: closed in /app/a.php:2",
    ),
    "php, with a cause": (
        "PHP Fatal error:  Uncaught LogicException: inner in /app/a.php:3\nStack trace:\n#0 {main}\n\n"
        "Next RuntimeException: outer in /app/a.php:5\nStack trace:\n#0 {main}\n  thrown in /app/a.php on line 5",
        "RuntimeException: outer in /app/a.php:5",
    ),
    "php, syntax": (
        'PHP Parse error:  syntax error, unexpected token ";" in /app/a.php on line 2',
        'syntax error, unexpected token ";" in /app/a.php on line 2',
    ),
    "perl": ("log\nwent wrong at a.pl line 1.", "went wrong at a.pl line 1."),
    "perl, use": (
        "Can't locate Nope.pm in @INC (@INC contains: /etc/perl) at c.pl line 1.\n"
        "BEGIN failed--compilation aborted at c.pl line 1.",
        "Can't locate Nope.pm in @INC (@INC contains: /etc/perl) at c.pl line 1.",
    ),
    "perl, confess": (
        "deep at d.pl line 1.\n\tmain::g() called at d.pl line 1\n\teval {...} called at d.pl line 1",
        "deep at d.pl line 1.",
    ),
    "bash": ("a.sh: line 2: NOPE: unbound variable", "a.sh: line 2: NOPE: unbound variable"),
    "bash, syntax": (
        "d.sh: line 1: syntax error near unexpected token `then'\nd.sh: line 1: `if then'",
        "d.sh: line 1: syntax error near unexpected token `then'",
    ),
    "go": (
        "2026/11/29 start\npanic: runtime error: index out of range [5] with length 3\n\ngoroutine 1 [running]:\n"
        "main.main()\n\t/app/main.go:5 +0x1d\nexit status 2",
        "panic: runtime error: index out of range [5] with length 3",
    ),
    "go, out of memory": (
        "fatal error: all goroutines are asleep - deadlock!\n\ngoroutine 1 [chan receive]:\nmain.main()\n"
        "\t/app/main.go:5 +0x1d",
        "fatal error: all goroutines are asleep - deadlock!",
    ),
    "java": (
        'Exception in thread "main" java.lang.RuntimeException: outer\n\tat A.main(A.java:1)\n'
        "Caused by: java.lang.IllegalStateException: closed\n\tat A.g(A.java:1)\n\t... 1 more",
        "java.lang.RuntimeException: outer",
    ),
    "java, its own exception": (
        'Exception in thread "main" shop.AccountClosed\n\tat shop.Main.main(Main.java:3)',
        "shop.AccountClosed",
    ),
    "java, no class": (
        "Error: Could not find or load main class nope.Main\n"
        "Caused by: java.lang.ClassNotFoundException: nope.Main",
        "Error: Could not find or load main class nope.Main",
    ),
    "c#": (
        "Unhandled exception. System.InvalidOperationException: closed\n   at Program.Main() in /app/a.cs:line 3",
        "System.InvalidOperationException: closed",
    ),
    "rust": (
        "\nthread 'main' (77) panicked at src/main.rs:2:5:\nindex out of bounds\n"
        "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace",
        "index out of bounds",
    ),
    "no trace": ("one\ntwo\nthe account is closed", "the account is closed"),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_line_that_says_what_failed_is_found(name: str) -> None:
    written, reason = SAMPLES[name]
    assert error_line(written.strip()) == reason
    # As the message of the failed attempt.
    stderr, nothing = Tail(65_536), Tail(65_536)
    stderr.feed(written.encode())
    outcome = outcome_of(Output(1, nothing, stderr, nothing))
    assert isinstance(outcome, Failure)
    assert outcome.message == reason


PROGRAMS = [
    ("node", "js", "const x = {};\nx.go();", "TypeError: x.go is not a function"),
    ("node", "js", "Promise.reject(new Error('later'))", "Error: later"),
    ("node", "js", "throw 'just text'", "just text"),
    ("node", "js", "const a = ;", "SyntaxError: Unexpected token ';'"),
    ("node", "js", "throw new AggregateError([new Error('x')], 'many')", "AggregateError: many"),
    (sys.executable, "py", "raise ValueError('first\\nsecond')", "ValueError: first"),
    (sys.executable, "py", "x = = 1", "SyntaxError: invalid syntax"),
    (sys.executable, "py", "raise SystemExit('bye')", "bye"),
    ("perl", "pl", "use Nope;", "Can't locate Nope.pm in @INC"),
    ("perl", "pl", "my $x = ;", "syntax error at "),
    ("perl", "pl", "use Carp; sub g { Carp::confess('deep') } g();", "deep at "),
    ("bash", "sh", "set -u\necho $NOPE", "NOPE: unbound variable"),
    ("bash", "sh", "if then", "syntax error near unexpected token"),
    ("php", "php", "<?php throw new RuntimeException('closed');", "RuntimeException: closed in "),
    ("ruby", "rb", "def f = nil.go\nf", "(NoMethodError)"),
    (
        "java",
        "java",
        'public class A { public static void main(String[] a) { throw new Error("no"); } }',
        "no",
    ),
]


@pytest.mark.parametrize(("program", "suffix", "source", "reason"), PROGRAMS)
def test_an_installed_interpreter_prints_what_the_table_expects(
    program: str, suffix: str, source: str, reason: str, tmp_path: Path
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    script = tmp_path / f"A.{suffix}"
    script.write_text(source)
    done = subprocess.run([program, script], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert reason in error_line(done.stderr.strip())


@given(st.text())
def test_any_text_has_a_line_of_its_own(text: str) -> None:
    found = error_line(text.strip())
    assert "\n" not in found
    assert found in text


@pytest.mark.parametrize(
    "line",
    [
        "panic: x\n",
        "\tfrom x\n",
        "a.rb:1:in `f': x (E)\n",
        "BEGIN failed--compilation aborted at x\n",
        "^\n",
        "Traceback (most recent call last):\n",
        "Traceback (most recent call last):\n  x\n",
        "    at x\n",
        "x" * 40,
        "a.b.",
        ": line 1: syntax error near \n",
        "thread '' panicked at ",
        ":1:in x (E)",
        "a.rb:1:in x: y",
        " ",
    ],
)
def test_as_much_as_is_kept_of_anything_is_read_in_no_time(line: str) -> None:
    began = time.process_time()
    for end in ("", "\nNode.js v20", "\n\tfrom x", "\ngoroutine 1 [x]", "\n    at x"):
        error_line((line * (65_536 // len(line)) + end).strip())
    assert time.process_time() - began < 3
