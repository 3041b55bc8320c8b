"""Forks `reproq-prefork` from a process that has imported it; `warm.py` beside it starts and uses this program.

    python -m tests.support.supervisor.warm_server SOCKET

A connection to the socket is one program. It says what is wanted as JSON, and hears the pid, and later how it
ended, each in a line. It all ends where standard input does.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Mapping
from typing import Any

from setproctitle import getproctitle

from reproq_prefork.cli.entry import main

STDIN = 0
FIRST_OTHER_FD = 3
MODES = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_APPEND, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def next_program(listener: socket.socket) -> Mapping[str, Any] | None:
    """What this process is to be: it is a fork, and the rest goes on elsewhere. None at the end."""
    woken, waker = socket.socketpair()
    for end in (woken, waker):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    programs: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as selector:
        for source in (STDIN, listener, woken):
            selector.register(source, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if STDIN in ready:
                return None
            if woken in ready:
                woken.recv(1000)
                _tell_of_the_dead(programs)
            if listener in ready:
                connection, _ = listener.accept()
                with connection.makefile() as lines:
                    request: Mapping[str, Any] = json.load(lines)
                pid = os.fork()
                if pid == 0:
                    return request
                programs[pid] = connection
                _say(connection, pid)


def _tell_of_the_dead(programs: dict[int, socket.socket]) -> None:
    for pid in list(programs):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with programs.pop(pid) as connection:
                _say(connection, os.waitstatus_to_exitcode(status))


def _say(connection: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # nobody asks any more
        connection.sendall(f"{number}\n".encode())


def become(program: Mapping[str, Any]) -> None:
    """All that a new process has of its own, but the interpreter."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for number, (path, mode) in enumerate(zip(program["streams"], MODES, strict=True)):
        opened = os.open(path, mode, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    os.closerange(FIRST_OTHER_FD, os.sysconf("SC_OPEN_MAX"))
    os.chdir(program["directory"])
    getproctitle()  # finds where the title stands beside the environment, as long as that is where it was
    os.environ.clear()
    os.environ.update(program["environ"])
    sys.path[0] = program["directory"]
    sys.argv[1:] = program["arguments"]


if __name__ == "__main__":
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(sys.argv[1])
        listener.listen(100)
        if os.fork():
            os._exit(0)  # what waits for it knows that it is ready; and it is no child of the tests
        program = next_program(listener)
        if program is not None:
            become(program)
            listener.detach()
            main()
