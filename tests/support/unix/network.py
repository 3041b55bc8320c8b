"""A network namespace with a link of its own to this one, which a test can cut so that nothing is heard of it."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest

_numbers = itertools.count(1)
_END = {"INPUT": "-i", "OUTPUT": "-o"}


@dataclass(frozen=True)
class Namespace:
    name: str
    gateway: str  # this side's address on the link
    link: str  # this side's end of it

    @property
    def prefix(self) -> tuple[str, ...]:
        """What to put before a command, to have it run there."""
        return "ip", "netns", "exec", self.name

    def cut(self, chains: Iterable[str] = ("INPUT", "OUTPUT")) -> None:
        """Drop the packets that come from it (INPUT), go to it (OUTPUT), or both; nobody is told."""
        for chain in chains:
            _do("iptables", "-w", "-I", chain, _END[chain], self.link, "-j", "DROP")

    def heal(self) -> None:
        for chain, end in _END.items():
            with contextlib.suppress(subprocess.CalledProcessError):  # not cut that way
                _do("iptables", "-w", "-D", chain, end, self.link, "-j", "DROP")


@contextlib.contextmanager
def namespace() -> Iterator[Namespace]:
    """Skips the test where this machine lets nobody make one."""
    missing = [program for program in ("ip", "iptables") if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"a network namespace needs {' and '.join(missing) or 'root'}")
    number = next(_numbers)
    name = f"reproq-{os.getpid()}-{number}"
    ours, theirs = f"rq{os.getpid() % 100_000}x{number}", f"rq{os.getpid() % 100_000}y{number}"
    subnet = f"10.{200 + number % 50}.{os.getpid() % 250}"
    try:
        _do("ip", "netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made here: {error.stderr.strip()}")
    made = Namespace(name, f"{subnet}.1", ours)
    try:
        _do("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        _do("ip", "addr", "add", f"{made.gateway}/24", "dev", ours)
        _do("ip", "link", "set", ours, "up")
        _do("ip", "-n", name, "addr", "add", f"{subnet}.2/24", "dev", theirs)
        _do("ip", "-n", name, "link", "set", theirs, "up")
        _do("ip", "-n", name, "link", "set", "lo", "up")
        yield made
    finally:
        made.heal()  # a rule would outlive the link that it names
        _do("ip", "netns", "del", name)


def _do(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
