"""The actions that `decide` asks of the master, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from reproq_prefork.errors import ExitStatus
from reproq_prefork.fleet.state import Role
from reproq_prefork.model.run import LostWorker
from reproq_prefork.text.log import LogLevel


@dataclass(frozen=True, slots=True)
class StartCheck:
    """Read and check the settings in a child; CheckPassed or CheckFailed follows."""


@dataclass(frozen=True, slots=True)
class AbandonCheck:
    """End the check: nobody needs its result any more."""


@dataclass(frozen=True, slots=True)
class AdoptSettings:
    """The generation uses the settings that were checked last."""

    generation: int


@dataclass(frozen=True, slots=True)
class Fork:
    """Fork a steward or a template."""

    role: Role
    generation: int


@dataclass(frozen=True, slots=True)
class ForkWorker:
    generation: int
    slot: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class RequestWorker:
    """Ask the template to fork a worker. Forked, ForkFailed, or Exited of the template follows later."""

    generation: int
    slot: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class SendSignal:
    pid: int
    signum: int


@dataclass(frozen=True, slots=True)
class TellSteward:
    generation: int
    lost: LostWorker


@dataclass(frozen=True, slots=True)
class ShowQuiet:
    quiet: bool


@dataclass(frozen=True, slots=True)
class WakeWorkers:
    pass


@dataclass(frozen=True, slots=True)
class DumpState:
    pass


@dataclass(frozen=True, slots=True)
class NotifySystemd:
    state: str


@dataclass(frozen=True, slots=True)
class WriteLog:
    level: LogLevel
    message: str


@dataclass(frozen=True, slots=True)
class EndMaster:
    status: ExitStatus


Action = (
    StartCheck
    | AbandonCheck
    | AdoptSettings
    | Fork
    | ForkWorker
    | RequestWorker
    | SendSignal
    | TellSteward
    | ShowQuiet
    | WakeWorkers
    | DumpState
    | NotifySystemd
    | WriteLog
    | EndMaster
)
