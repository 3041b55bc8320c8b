"""The hosts of a storm: a master each, which may be started again, behind a link to the server of its own."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from tests.chaos import container, pages
from tests.chaos.kinds import LEASE_S
from tests.chaos.load import PROGRAMS_QUEUE, SITE_QUEUE
from tests.chaos.log_pipe import LogPipe
from tests.support.postgres.proxy import Proxy
from tests.support.supervisor.supervisor import Supervisor, is_running
from tests.support.waiting import wait_until

PROGRAM = Path(__file__).parent / "program.py"
EXIT_TIMEOUT_S = 15.0  # of what a dead master has left, and of a master that was told to stop


@dataclass(frozen=True, slots=True)
class Part:
    """What a host is there for; external programs run on each. `weight`: how often faults draw it."""

    environ: Mapping[str, str]
    workers: int
    weight: int
    is_contained: bool = False  # its master runs below a pid 1 of ours, where that can be had


FUNCTIONS = Part(
    {
        "QUEUE_NAME": f"default,{PROGRAMS_QUEUE}",
        "ALLOWED_TASK_MODULES": "tests.chaos.bodies",
    },
    workers=4,
    weight=2,
)
SITE = Part(
    {
        "QUEUE_NAME": f"{SITE_QUEUE},{PROGRAMS_QUEUE}",
        "REPROQ_DJANGO": "tests.chaos.django_site.settings",
    },
    workers=2,
    weight=1,
)
HOSTS: Mapping[str, Part] = {
    "a": FUNCTIONS,
    "b": replace(FUNCTIONS, is_contained=True),
    "c": SITE,
    "d": replace(SITE, is_contained=True),
}


@dataclass
class Host:
    name: str
    proxy: Proxy
    environ: Mapping[str, str]
    directory: Path
    log: LogPipe
    supervisor: Supervisor = field(init=False)
    leftovers: list[str] = field(default_factory=list)

    @property
    def workers(self) -> int:
        return HOSTS[self.name].workers

    @property
    def is_contained(self) -> bool:
        return HOSTS[self.name].is_contained and container.can_be_made()

    def start(self) -> None:
        kind = container.ContainedSupervisor if self.is_contained else Supervisor
        self.supervisor = kind(
            self.proxy.url,
            self.directory,
            workers=self.workers,
            environ=self.environ,
            log_path=self.log.path,
            within=container.IN_NAMESPACE if self.is_contained else (),
        ).start()

    def family(self) -> list[psutil.Process]:
        return self.supervisor.family()

    def bury(self, family: list[psutil.Process]) -> None:
        """Wait until what a dead master has left is gone."""
        self.supervisor.wait(EXIT_TIMEOUT_S)
        try:
            wait_until(lambda: not any(map(is_running, family)), EXIT_TIMEOUT_S, "all to be gone")
        except AssertionError:
            for process in filter(is_running, family):
                self.leftovers.append(
                    f"process {process.pid} of host {self.name} has outlived its master by {EXIT_TIMEOUT_S:g} s"
                )
                process.kill()

    def stop(self) -> None:
        """As an operator does; what is wrong with that is noted."""
        family = self.family()
        try:
            status = self.supervisor.stop()
        except subprocess.TimeoutExpired:
            self.leftovers.append(f"the master of host {self.name} does not stop")
            return
        except psutil.NoSuchProcess:
            self.leftovers.append(f"the master of host {self.name} was gone when it was to stop")
            return
        finally:
            for process in filter(is_running, family):
                self.leftovers.append(
                    f"process {process.pid} of host {self.name} was left by a master that has stopped"
                )
                process.kill()
        if status != 0:
            self.leftovers.append(f"the master of host {self.name} has stopped with exit status {status}")


def environ_of(name: str, directory: Path, package: Path, checkout: Path) -> Mapping[str, str]:
    """`package`: where `reproq_prefork` is imported from. Makes the host's directory of temporary files."""
    temporary = directory / f"tmp-{name}"
    temporary.mkdir()
    return {
        pages.DIARY: str(directory / "diary"),
        pages.HOST: name,
        pages.SITE_LOG: str(directory / f"site-{name}.log"),
        "TMPDIR": str(temporary),
        "PYTHONPATH": f"{package}:{checkout}",
        "EXECUTOR_COMMAND": f"{sys.executable} -I -S {PROGRAM}",
        "REPROQ_EXECUTOR": "inline",
        "REPROQ_LEASE": f"{LEASE_S:g}s",
        "REPROQ_LOG_LEVEL": "info",
        "REPROQ_TASK_MEMORY": str(pages.MEMORY_BYTES),
        "WORKER_ID": worker_id_of(name),
        **HOSTS[name].environ,
    }


def containers() -> str:
    """Which of the hosts are containers, as a sentence."""
    names = [name for name, part in HOSTS.items() if part.is_contained]
    if not container.can_be_made():
        return f"The hosts {' and '.join(names)} are no containers: no pid namespace can be made here."
    return f"The hosts {' and '.join(names)} are containers, with a pid 1 of their own."


def worker_id_of(name: str) -> str:
    """The part that the ids of all its workers begin with."""
    return f"storm-{name}"


@functools.cache
def host_of(worker_id: str) -> str:
    return worker_id.partition("/")[0].removeprefix("storm-")
