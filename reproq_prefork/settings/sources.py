"""The places where a setting can be written, and which is the strongest.

flag > environment > `.env` > `reproq.toml` > default. A blank value counts as unset in every place. So with
`QUEUE_NAME=` in a unit file, or `--pid-file "$UNSET"`, the next place is used.
"""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reproq_prefork.settings.options import OPTIONS, Option

PREFIX = "REPROQ_"
_VARIABLES = frozenset(name for option in OPTIONS for name in option.variables)
# What may follow the prefix by mistake, and the variable that was meant.
_BY_SUFFIX = {
    name.removeprefix(PREFIX): option.variables[-1] for option in OPTIONS for name in option.variables
}
# A worker sets these for a task, which may run a command of ours.
_OF_A_TASK = frozenset(
    PREFIX + name for name in ("TASK_ID", "SPEC_HASH", "ATTEMPT", "CLAIM", "DEADLINE", "RESULT_FD")
)
# Kubernetes sets these for each service in a namespace, and one may be named `reproq` or `reproq-web`.
_OF_A_SERVICE = re.compile(
    r"_(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_\w+)?)$"
)

# What a command line parser returns for a flag. None, False, "" and an empty list all mean: not given.
FlagValue = str | bool | Sequence[str] | None


class Precedence(enum.IntEnum):
    """The places, strongest first."""

    FLAG = 1
    ENVIRONMENT = 2
    ENV_FILE = 3
    CONFIG_FILE = 4
    DEFAULT = 5


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that is written anywhere, read but not checked.

    `flags` are by option name, `environ` and `env_file_values` by variable, `config_values` by toml key. The two
    files have their paths as given, relative to `chdir`; None if there is none. `problems` are sentences about
    what could not be read.
    """

    flags: Mapping[str, FlagValue]
    environ: Mapping[str, str]
    chdir: Path
    env_file: Path | None = None
    env_file_values: Mapping[str, str] = field(default_factory=dict)
    config_file: Path | None = None
    config_values: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """The text of an option, and where it is set: under `name`, in `place`."""

    text: str
    name: str
    place: Precedence
    place_name: str

    @property
    def source(self) -> str:
        """For `config`: `flag --workers`, `environment REPROQ_WORKERS`, `.env`, `reproq.toml`."""
        if self.place in (Precedence.FLAG, Precedence.ENVIRONMENT):
            return f"{self.place_name} {self.name}"
        return self.place_name

    @property
    def where(self) -> str:
        """For a sentence: `REPROQ_WORKERS (environment)`."""
        return f"{self.name} ({self.place_name})"


def find(option: Option, sources: Sources) -> Given | None:
    """The value of `option` in the strongest place; None if it is not set anywhere."""
    candidates = [
        Given(_flag_text(option, sources.flags.get(option.name)), option.long_flag, Precedence.FLAG, "flag"),
        *_in_variables(option, sources.environ, Precedence.ENVIRONMENT, "environment"),
    ]
    if option.toml_key is not None:
        in_config = sources.config_values.get(option.toml_key, "")
        candidates += [
            *_in_variables(option, sources.env_file_values, Precedence.ENV_FILE, str(sources.env_file)),
            Given(in_config, option.toml_key, Precedence.CONFIG_FILE, str(sources.config_file)),
        ]
    return next((given for given in candidates if given.text.strip()), None)


def _in_variables(
    option: Option, values: Mapping[str, str], place: Precedence, place_name: str
) -> list[Given]:
    return [Given(values.get(name, ""), name, place, place_name) for name in option.variables]


def _places_of_variables(sources: Sources) -> tuple[tuple[Mapping[str, str], str], ...]:
    """Where variables are set, each with its name for messages."""
    return (sources.environ, "environment"), (sources.env_file_values, str(sources.env_file))


def contradictions(option: Option, sources: Sources) -> list[str]:
    """A sentence for each place where two variables of `option` have different values. It quotes no value."""
    return [
        f"{' and '.join(option.variables)} ({place_name}) are two names of one option and have different values; "
        "set only one of them"
        for values, place_name in _places_of_variables(sources)
        if len({values[name].strip() for name in option.variables if values.get(name, "").strip()}) > 1
    ]


def unknown_variables(sources: Sources) -> list[str]:
    """A sentence for each `REPROQ_…` variable that nothing reads: it is probably a mistyped option."""
    return [
        f"{name} ({place_name}): there is no such variable; {_meant(name)}"
        for values, place_name in _places_of_variables(sources)
        for name in sorted(values)
        if name.startswith(PREFIX) and values[name].strip() and not _is_known(name)
    ]


def _is_known(name: str) -> bool:
    return (
        name in _VARIABLES
        or name in _OF_A_TASK
        or name.startswith(f"{PREFIX}TEST_")
        or _OF_A_SERVICE.search(name) is not None
    )


def _meant(name: str) -> str:
    close = difflib.get_close_matches(name.removeprefix(PREFIX), _BY_SUFFIX, n=1)
    return f"did you mean {_BY_SUFFIX[close[0]]}?" if close else "`reproq-prefork --help` lists all variables"


def _flag_text(option: Option, value: FlagValue) -> str:
    match value:
        case None | False:
            return ""
        case True:
            return "true"
        case str():
            return value
        case _ if option.kind.join is not None:
            return option.kind.join(value)
        case _:
            raise TypeError(f"{option.long_flag} takes one value, not {value!r}")
