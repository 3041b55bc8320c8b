"""What the demo shows: a bar that is redrawn on a terminal, and plain lines everywhere else."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable

import pytest

from reproq_prefork.demo.screen import Screen

ERASE = "\r\x1b[K"


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def taken(self) -> str:
        """What was written since the last call, with `<` where the line was erased."""
        text = self.getvalue().replace(ERASE, "<")
        self.truncate(0)
        self.seek(0)
        return text


class AsciiTerminal(Terminal):
    encoding = "ascii"


@pytest.fixture(autouse=True)
def columns(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets the width of the terminal, which is 80 before."""

    def set_columns(number: int) -> None:
        monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((number, 24)))

    set_columns(80)
    return set_columns


def test_on_a_terminal_the_bar_is_redrawn_in_place() -> None:
    terminal = Terminal()
    screen = Screen(terminal, {"NO_COLOR": "1"})
    screen.progress(0, 200, 0)
    screen.progress(100, 200, 41.5)
    screen.end_progress()
    first, second = "░" * 36, "█" * 18 + "░" * 18
    assert terminal.taken() == f"<  {first}    0/200 tasks<  {second}  100/200 tasks   42/s\n"


def test_a_line_is_written_above_the_bar() -> None:
    terminal = Terminal()
    screen = Screen(terminal, {"NO_COLOR": "1"})
    screen.progress(0, 2, 0)
    bar = terminal.taken()
    screen.line("something happens")
    assert terminal.taken() == f"<something happens\n{bar}"


def test_output_after_the_block_begins_on_a_new_line() -> None:
    terminal = Terminal()
    with Screen(terminal, {}) as screen:
        screen.progress(1, 2, 1)
    assert terminal.taken().endswith("\n")


@pytest.mark.parametrize("number", [80, 60, 40, 25])
def test_the_bar_is_narrower_than_the_terminal(number: int, columns: Callable[[int], None]) -> None:
    columns(number)
    terminal = Terminal()
    Screen(terminal, {"NO_COLOR": "1"}).progress(200, 200, 999)
    assert len(terminal.taken().removeprefix("<")) < number


def test_a_terminal_that_cannot_show_blocks_gets_ascii() -> None:
    terminal = AsciiTerminal()
    Screen(terminal, {"NO_COLOR": "1"}).progress(100, 200, 41)
    assert "  " + "#" * 18 + "-" * 18 in terminal.taken()


def test_no_color_leaves_colours_out_and_keeps_the_bar() -> None:
    terminal = Terminal()
    Screen(terminal, {}).line("red", fg="red")
    assert terminal.taken() == "\x1b[31mred\x1b[0m\n"
    screen = Screen(terminal, {"NO_COLOR": "1"})
    screen.line("red", fg="red", took_s=1.0)
    screen.progress(1, 2, 1)
    shown = terminal.taken()
    assert "<  █" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("stream", "environ"),
    [(io.StringIO(), {}), (Terminal(), {"TERM": "dumb"})],
    ids=["pipe", "dumb terminal"],
)
def test_output_that_cannot_be_redrawn_gets_a_line_at_each_quarter(
    stream: io.StringIO, environ: dict[str, str]
) -> None:
    screen = Screen(stream, environ)
    for done in range(201):
        screen.progress(done, 200, 40)
    screen.end_progress()
    assert [line.split()[0] for line in stream.getvalue().splitlines()] == ["25", "50", "75", "100"]
    assert "\x1b" not in stream.getvalue()
