"""The places where a setting can be written, and which is the strongest.

flag > environment > `.env` > `reproq.toml` > default. A blank value counts as unset in every place. So with
`QUEUE_NAME=` in a unit file, or `--pid-file "$UNSET"`, the next place is used.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reproq_prefork.settings.options import Option

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
        Given(sources.environ.get(option.env, ""), option.env, Precedence.ENVIRONMENT, "environment"),
    ]
    if option.toml_key is not None:
        in_env_file = sources.env_file_values.get(option.env, "")
        in_config = sources.config_values.get(option.toml_key, "")
        candidates += [
            Given(in_env_file, option.env, Precedence.ENV_FILE, str(sources.env_file)),
            Given(in_config, option.toml_key, Precedence.CONFIG_FILE, str(sources.config_file)),
        ]
    return next((given for given in candidates if given.text.strip()), None)


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
