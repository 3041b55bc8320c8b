"""The helper for Python executors, as a process of its own, judged by how the worker reads what it leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from reproq_prefork.executors.program_output import Output, outcome_of
from reproq_prefork.executors.tail import Tail
from reproq_prefork.model.limits import MAX_RESULT_BYTES, MAX_STDERR_TAIL_BYTES
from reproq_prefork.model.outcome import Failure, FailureKind, Outcome, Snoozed, Success

TIMEOUT_S = 30
CONTEXT = {
    "REPROQ_TASK_ID": "1842",
    "REPROQ_SPEC_HASH": "ab" * 32,
    "REPROQ_ATTEMPT": "2",
    "REPROQ_CLAIM": "7",
    "REPROQ_DEADLINE": "1795000000",
}


@dataclass(frozen=True)
class Ended:
    """An executor that has ended, and what the worker makes of it."""

    status: int
    stdout: bytes
    stderr: bytes
    outcome: Outcome

    @property
    def result(self) -> object:
        assert isinstance(self.outcome, Success), self.outcome
        return json.loads(self.outcome.result)

    @property
    def failure(self) -> Failure:
        assert isinstance(self.outcome, Failure), self.outcome
        return self.outcome


class Program:
    """A file whose last line hands `handler` to the helper; `body` is what defines it."""

    def __init__(self, path: Path, body: str) -> None:
        self._path = path
        path.write_text(
            f"import asyncio, os, subprocess, sys\nfrom reproq_prefork import executor\n{body}\n"
            "if __name__ == '__main__':\n    executor.run(handler)\n",
            encoding="utf-8",
        )

    def run(
        self,
        payload: object = None,
        *,
        by_stdin: bool = False,
        with_result_fd: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> Ended:
        text = json.dumps(payload, ensure_ascii=False)
        return self.run_with(
            ["--payload", "-" if by_stdin else text],
            stdin=text.encode() if by_stdin else b"",
            with_result_fd=with_result_fd,
            environ=environ,
        )

    def run_with(
        self,
        arguments: list[str],
        *,
        stdin: bytes = b"",
        with_result_fd: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> Ended:
        reader, writer = os.pipe()
        try:
            done = subprocess.run(
                [sys.executable, str(self._path), *arguments],
                input=stdin,
                capture_output=True,
                env={**({"REPROQ_RESULT_FD": str(writer)} if with_result_fd else {}), **(environ or {})},
                pass_fds=(writer,),
                timeout=TIMEOUT_S,
            )
        finally:
            os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            written = stream.read()
        tails = (
            tail_of(done.stdout, MAX_RESULT_BYTES),
            tail_of(done.stderr, MAX_STDERR_TAIL_BYTES),
            tail_of(written, MAX_RESULT_BYTES),
        )
        return Ended(done.returncode, done.stdout, done.stderr, outcome_of(Output(done.returncode, *tails)))


def tail_of(written: bytes, limit: int) -> Tail:
    tail = Tail(limit)
    tail.feed(written)
    return tail


@pytest.fixture
def program(tmp_path: Path, request: pytest.FixtureRequest) -> Program:
    return Program(tmp_path / "myexecutor.py", request.param)


def handler(body: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("program", [body], indirect=True, ids=[""])


@handler("def handler(payload): return {'hello': payload['name']}")
@pytest.mark.parametrize("by_stdin", [False, True], ids=["argument", "stdin"])
def test_the_handler_gets_the_payload_and_its_return_value_is_the_result(
    program: Program, by_stdin: bool
) -> None:
    ended = program.run({"name": "Zoé ☃"}, by_stdin=by_stdin)
    assert (ended.status, ended.result, ended.stdout) == (0, {"hello": "Zoé ☃"}, b"")


@handler("async def handler(payload):\n    await asyncio.sleep(0)\n    return payload + 1")
def test_a_handler_may_be_async(program: Program) -> None:
    assert program.run(41).result == 42


@handler("def handler(payload): return payload")
def test_the_payload_is_utf_8_whatever_the_locale_says(program: Program) -> None:
    environ = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert program.run("Zoé ☃", environ=environ).result == "Zoé ☃"


@handler(
    "def handler(payload):\n"
    "    print('{\"chatter\": 1}')\n"
    "    subprocess.run(['echo', '[2]'])\n"
    "    print('half a line', end='')\n"
    "    return payload\n"
)
@pytest.mark.parametrize("with_result_fd", [True, False], ids=["by the descriptor", "by stdout"])
def test_printed_text_does_not_damage_the_result(program: Program, with_result_fd: bool) -> None:
    assert program.run("the result", with_result_fd=with_result_fd).result == "the result"


@handler("def handler(payload): return payload")
def test_a_closed_result_descriptor_does_not_lose_the_result(program: Program) -> None:
    # sudo closes it, for one.
    assert program.run("kept", environ={"REPROQ_RESULT_FD": "987"}).result == "kept"


@handler(
    "LIST = \"import os; print(os.listdir('/proc/self/fd'), 'REPROQ_RESULT_FD' in os.environ)\"\n"
    "def handler(payload):\n"
    "    command = [sys.executable, '-c', LIST]\n"
    "    return subprocess.run(command, capture_output=True, text=True, close_fds=False).stdout\n"
)
def test_programs_that_the_handler_starts_do_not_get_the_result_descriptor(program: Program) -> None:
    # Descriptor 3 is that of the listing itself.
    assert program.run().result == "['0', '1', '2', '3'] False\n"


@handler("class Broken(Exception): pass\ndef handler(payload): raise Broken('no ☃ today')")
def test_an_exception_is_a_failed_attempt_with_message_and_traceback(program: Program) -> None:
    ended = program.run()
    failure = ended.failure
    assert ended.status == 1
    assert (failure.kind, failure.message, failure.retry) == (FailureKind.FAILED, "no ☃ today", True)
    assert failure.exception == "__main__.Broken"
    assert "in handler" in (failure.traceback or "")
    said = json.loads(ended.stderr.splitlines()[-1])
    assert said.keys() == {"message", "exception", "traceback"}


@handler("def handler(payload):\n    sys.stderr.write('half a line')\n    return payload['name']")
def test_earlier_output_on_stderr_does_not_damage_the_error(program: Program) -> None:
    failure = program.run({}).failure
    assert (failure.message, failure.exception) == ("'name'", "KeyError")


@handler("def handler(payload): raise ValueError('\\udcff \\0' + '\"\\x1b☃' * 200_000)")
def test_an_error_of_any_text_and_length_reaches_the_worker(program: Program) -> None:
    failure = program.run().failure
    assert failure.exception == "ValueError"
    assert failure.message.startswith('? \N{REPLACEMENT CHARACTER}"\x1b☃')
    assert failure.traceback is not None


@handler("def handler(payload): raise executor.Discard('the account is closed')")
def test_discard_prevents_a_retry(program: Program) -> None:
    failure = program.run().failure
    assert (failure.message, failure.retry) == ("the account is closed", False)


@handler("def handler(payload): raise executor.Retry('rate limit', after=90.5)")
def test_retry_sets_the_time_of_the_next_attempt(program: Program) -> None:
    failure = program.run().failure
    assert (failure.message, failure.retry, failure.retry_after_s) == ("rate limit", True, 90.5)


@handler("def handler(payload): raise executor.Retry(after=float(payload))")
@pytest.mark.parametrize("after_s", ["nan", "inf", "-1"])
def test_a_retry_with_a_wrong_time_is_an_error_of_the_handler(program: Program, after_s: str) -> None:
    failure = program.run(after_s).failure
    assert (failure.exception, failure.retry_after_s) == ("ValueError", None)
    assert failure.message.startswith("after must be a number of seconds")


@handler("def handler(payload): raise executor.Snooze('not ready \\0\\udcff', after=90.5)")
def test_a_handler_may_ask_to_be_run_again_later(program: Program) -> None:
    ended = program.run()
    assert (ended.status, ended.outcome) == (1, Snoozed(90.5, "not ready \N{REPLACEMENT CHARACTER}?"))


GROUP = """
async def handler(payload):
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(60))
        group.create_task(poll())

async def poll():
    raise executor.{}
"""


@handler(GROUP.format("Snooze(after=5)"))
def test_a_snooze_counts_in_a_task_group_too(program: Program) -> None:
    assert program.run().outcome == Snoozed(5)


@handler(GROUP.format("Discard('no')"))
def test_a_discard_counts_in_a_task_group_too(program: Program) -> None:
    assert not program.run().failure.retry


@handler("def handler(payload): raise executor.Snooze(after=float(payload))")
@pytest.mark.parametrize("after_s", ["nan", "inf", "-1", "3153600001"])
def test_a_snooze_with_a_wrong_length_is_an_error_of_the_handler(program: Program, after_s: str) -> None:
    failure = program.run(after_s).failure
    assert failure.exception == "ValueError"
    assert failure.message.startswith("after must be from 0 to 3153600000 seconds")


@handler("def handler(payload): sys.exit(payload)")
@pytest.mark.parametrize("code", [0, None])
def test_exiting_without_an_error_is_a_success_without_a_result(program: Program, code: int | None) -> None:
    ended = program.run(code)
    assert (ended.status, ended.result) == (0, None)


@handler("def handler(payload): sys.exit(payload)")
@pytest.mark.parametrize(
    ("code", "status", "message"), [(3, 3, "exit status 3"), ("no such host", 1, "no such host")]
)
def test_exiting_with_an_error_is_a_failed_attempt(
    program: Program, code: object, status: int, message: str
) -> None:
    ended = program.run(code)
    assert (ended.status, ended.failure.message) == (status, message)


@handler("def handler(payload): return eval(payload)")
@pytest.mark.parametrize(
    ("result", "why"),
    [
        ("{1, 2}", "Object of type set is not JSON serializable"),
        ("float('nan')", "Out of range float values"),
        ("'\\udcff'", "surrogates not allowed"),
        ("(lambda own: own.append(own) or own)([])", "Circular reference"),
    ],
)
def test_a_result_that_is_not_json_ends_the_run(program: Program, result: str, why: str) -> None:
    failure = program.run(result).failure
    assert failure.kind is FailureKind.FAILED
    assert not failure.retry
    assert failure.exception == "TypeError"
    assert failure.message.startswith("the result of the task is not JSON: ")
    assert why in failure.message


@handler("def handler(payload): return payload")
@pytest.mark.parametrize("payload", ["{", "[" * 100_000, "9" * 5_000])
def test_a_payload_that_cannot_be_read_is_not_tried_again(program: Program, payload: str) -> None:
    failure = program.run_with(["--payload", payload]).failure
    assert failure.message.startswith("the payload cannot be read: ")
    assert not failure.retry


@handler("def handler(payload): return payload")
@pytest.mark.parametrize("arguments", [[], ["--payload"], ["{}"], ["--payload", "{}", "more"]])
def test_a_program_started_without_a_payload_prints_its_usage(program: Program, arguments: list[str]) -> None:
    ended = program.run_with(arguments)
    assert ended.status == 2
    assert ended.stderr.startswith(b"usage: myexecutor.py --payload JSON")


@handler("def handler(payload): return [payload, sys.argv[1:3]]")
def test_a_program_may_have_arguments_of_its_own(program: Program) -> None:
    assert program.run_with(["--region", "eu", "--payload", "5"]).result == [5, ["--region", "eu"]]


@handler("def handler(payload): return executor.context()")
def test_the_context_holds_the_environment_of_the_attempt(program: Program) -> None:
    assert program.run(environ=CONTEXT).result == [1842, "ab" * 32, 2, 7, 1795000000.0]


@handler("def handler(payload): return executor.context().deadline_unix_s")
def test_a_task_without_a_deadline_has_none(program: Program) -> None:
    environ = {name: value for name, value in CONTEXT.items() if name != "REPROQ_DEADLINE"}
    assert program.run(environ=environ).result is None


@handler("def handler(payload): return executor.context()")
def test_the_context_does_not_exist_outside_a_worker(program: Program) -> None:
    failure = program.run().failure
    assert failure.exception == "RuntimeError"
    assert failure.message.startswith("REPROQ_TASK_ID is not set")
