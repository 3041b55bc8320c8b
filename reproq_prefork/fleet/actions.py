"""What `decide` has the master do, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from reproq_prefork.errors import ExitStatus
from reproq_prefork.model.run import LostWorker
from reproq_prefork.text.log import LogLevel


@dataclass(frozen=True, slots=True)
class StartCheck:
    """Read and check the settings in a child; CheckPassed or CheckFailed follows."""


@dataclass(frozen=True, slots=True)
class AbandonCheck:
    """Nobody waits for the check any more."""


@dataclass(frozen=True, slots=True)
class AdoptSettings:
    """The settings that were checked last are this generation's."""

    generation: int


@dataclass(frozen=True, slots=True)
class ForkWorker:
    generation: int
    slot: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class RequestWorker:
    """The template is to fork it. WorkerForked, ForkFailed or TemplateExited follows, some time."""

    generation: int
    slot: int
    incarnation: int


@dataclass(frozen=True, slots=True)
class ForkTemplate:
    generation: int


@dataclass(frozen=True, slots=True)
class ForkSteward:
    generation: int


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
    | ForkWorker
    | RequestWorker
    | ForkTemplate
    | ForkSteward
    | SendSignal
    | TellSteward
    | ShowQuiet
    | WakeWorkers
    | DumpState
    | NotifySystemd
    | WriteLog
    | EndMaster
)
