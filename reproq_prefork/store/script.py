"""What is asked of the database, apart from how it is sent. So blocking callers and those of asyncio share it.

A script is a generator. It yields a step, gets the answer of that step, and returns its result. An error of a
step is raised where the script has yielded it. `play` sends the steps of a script and waits for each answer;
`aplay` awaits them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from reproq_prefork.store.sender import AsyncSender, Sender

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ask:
    """Send the statement `name`. The answer: its rows (see `Sender.fetch`)."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Whole:
    """Play `script` so that it takes effect as a whole, or not at all. The answer: its result."""

    script: Script[Any]


@dataclass(frozen=True, slots=True)
class Copy:
    """Send rows with the statement `copy_runs`, inside a `Whole`. Not every connection can."""

    rows: Iterable[tuple[Any, ...]]


Step: TypeAlias = Ask | Whole | Copy
Script: TypeAlias = Generator[Step, Any, T]


def play(sender: Sender, script: Script[T]) -> T:
    try:
        step = next(script)
        while True:
            try:
                answer = _answer(sender, step)
            except BaseException as error:
                step = script.throw(error)
            else:
                step = script.send(answer)
    except StopIteration as finished:
        return finished.value  # type: ignore[no-any-return]


async def aplay(sender: AsyncSender, script: Script[T]) -> T:
    try:
        step = next(script)
        while True:
            try:
                answer = await _answer_async(sender, step)
            except BaseException as error:
                step = script.throw(error)
            else:
                step = script.send(answer)
    except StopIteration as finished:
        return finished.value  # type: ignore[no-any-return]


def _answer(sender: Sender, step: Step) -> Any:
    match step:
        case Ask(name, parameters):
            return sender.fetch(name, parameters)
        case Whole(script):
            with sender.all_or_nothing():
                return play(sender, script)
        case Copy(rows):
            return sender.copy(rows)


async def _answer_async(sender: AsyncSender, step: Step) -> Any:
    match step:
        case Ask(name, parameters):
            return await sender.fetch(name, parameters)
        case Whole(script):
            async with sender.all_or_nothing():
                return await aplay(sender, script)
        case Copy(rows):
            return await sender.copy(rows)
