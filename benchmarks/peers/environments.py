"""Where peers live: each in an environment of its own, at its newest release, kept for the next run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.peer import Peer, Runtime

STAMP = "installed.json"


class CannotInstall(RuntimeError):
    def __init__(self, peer: Peer, said: str) -> None:
        super().__init__(f"{peer.name} could not be installed: {said.strip()[-500:]}")


@dataclass(frozen=True)
class Environment:
    directory: Path
    program: tuple[str, ...]  # what a verb is added to
    version: str


def environment_of(peer: Peer, root: Path, *, checkout: Path) -> Environment:
    """The environment of `peer` below `root`, made now if it is not there. Raises CannotInstall.

    Python peers get the interpreter that measures us.
    """
    directory = (root / peer.module).absolute()
    stamp = directory / STAMP
    wanted = [*peer.requirements, sys.version.split()[0]]
    if not stamp.exists() or json.loads(stamp.read_text())["requirements"] != wanted:
        sys.stderr.write(f"  installing {peer.name} ...\n")
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        version = _by_npm(peer, directory) if peer.runtime is Runtime.NODE else _by_pip(peer, directory)
        stamp.write_text(json.dumps({"requirements": wanted, "version": version}))
    programs = checkout / "benchmarks" / "peers" / "programs"
    program = (
        ("node", str(programs / f"{peer.module}.mjs"))
        if peer.runtime is Runtime.NODE
        else (str(directory / "bin" / "python"), "-m", f"benchmarks.peers.programs.{peer.module}")
    )
    return Environment(directory, program, json.loads(stamp.read_text())["version"])


def _by_pip(peer: Peer, directory: Path) -> str:
    python = str(directory / "bin" / "python")
    _run(peer, [sys.executable, "-m", "venv", str(directory)])
    _run(peer, [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *peer.requirements])
    code = f"import importlib.metadata as m; print(m.version({peer.package!r}))"
    return _run(peer, [python, "-c", code]).strip()


def _by_npm(peer: Peer, directory: Path) -> str:
    _run(peer, ["npm", "install", "--silent", "--prefix", str(directory), *peer.requirements])
    package = directory / "node_modules" / peer.package / "package.json"
    version: str = json.loads(package.read_text())["version"]
    return version


def _run(peer: Peer, command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CannotInstall(peer, str(error)) from None
    if done.returncode != 0:
        raise CannotInstall(peer, done.stderr or done.stdout)
    return done.stdout
