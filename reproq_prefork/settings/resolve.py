"""Makes one `Settings` from everything that is set anywhere. Pure: the facts about the host are passed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from reproq_prefork.errors import SettingsError
from reproq_prefork.settings import ExecutorKind, Settings
from reproq_prefork.settings.options import MAX_WORKERS, OPTIONS
from reproq_prefork.settings.sources import (
    Given,
    Precedence,
    Sources,
    contradictions,
    find,
    unknown_variables,
)
from reproq_prefork.text.duration import format_duration
from reproq_prefork.text.printable import printable
from reproq_prefork.text.redact import mask_url

# systemd talks to the master through these. A task that had them could speak in the master's name.
_MASTERS_OWN_VARIABLES = frozenset(
    {
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "LISTEN_PID",
        "LISTEN_PIDFDID",
    }
)
_FIELDS = frozenset(field.name for field in fields(Settings))  # all options but the two that name files
_OPTION_VARIABLES = frozenset(name for option in OPTIONS for name in option.variables)
_MAX_HOSTNAME_CHARS = 70  # leaves room for the rest of a worker id


@dataclass(frozen=True, slots=True)
class ResolvedValue:
    """The value of one option, and the place where it was set.

    `source` says for people where it comes from. Nothing is decided by it: a file may be named `default`.
    """

    value: Any
    place: Precedence
    source: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings without contradictions, and the origin of each value by option name. It can be pickled."""

    values: Mapping[str, ResolvedValue]
    settings: Settings
    warnings: tuple[str, ...]


class Description(NamedTuple):
    """One line of `reproq-prefork config`. The value is printable, and its password is masked."""

    option: str
    value: str
    source: str


def resolve(sources: Sources, *, hostname: str, now: datetime, cpu_count: int) -> Resolved:
    """The settings. Raises one SettingsError with every problem, not only the first.

    `now` (UTC) and `hostname` make the worker's name if nobody set it. `cpu_count` is the number of usable CPUs.
    """
    problems = [*sources.problems, *unknown_variables(sources)]
    given = {option.name: find(option, sources) for option in OPTIONS}
    values: dict[str, ResolvedValue] = {}
    for option in OPTIONS:
        problems += contradictions(option, sources)
        found = given[option.name]
        if found is None:
            values[option.name] = _default(option.default)
            continue
        try:
            values[option.name] = ResolvedValue(option.kind.parse(found.text), found.place, found.source)
        except ValueError as error:
            problems.append(f"{found.where}: {error}")

    problems += _choose_program(values, given["executor_module"], given["command"])
    problems += _choose_executor(values, given["executor"])
    problems += _exclude_queues(values, given["excluded_queues"])
    problems += _check_retries(values, given["retry_base"] or given["retry_max"])
    if problems:
        raise SettingsError(problems)

    _fill(values, "workers", max(1, min(cpu_count, MAX_WORKERS)))
    _fill(values, "worker_id", _worker_id(hostname, now))
    _fill(values, "env_file", sources.env_file)
    _fill(values, "config", sources.config_file)
    for name in ("env_file", "config", "pid_file"):
        path: Path | None = values[name].value
        values[name] = replace(values[name], value=path and sources.chdir / path)
    values["chdir"] = replace(values["chdir"], value=sources.chdir)
    return Resolved(values, _settings(values, sources), sources.warnings)


def describe(resolved: Resolved) -> list[Description]:
    """Every option with its value and origin, in the order of `OPTIONS`. It holds no password."""
    return [
        Description(option.name, printable(mask_url(text) if option.secret else text), value.source)
        for option in OPTIONS
        for value in [resolved.values[option.name]]
        for text in [option.default_text if value.value is None else option.kind.show(value.value)]
    ]


def task_environ(
    environ: Mapping[str, str], env_file_values: Mapping[str, str], names: Sequence[str] | None
) -> dict[str, str]:
    """The environment that each task starts with: that of the master, and what `.env` adds to it.

    If both set a variable, the environment wins. A blank variable that is an option of ours is the only exception:
    it counts as unset. `names` limits what is passed on; None passes all.
    """
    own = {name: value for name, value in environ.items() if value.strip() or name not in _OPTION_VARIABLES}
    merged = {**env_file_values, **own}
    allowed = merged.keys() if names is None else set(names)
    return {
        name: value
        for name, value in merged.items()
        if name in allowed and name not in _MASTERS_OWN_VARIABLES
    }


def _default(value: object) -> ResolvedValue:
    return ResolvedValue(value, Precedence.DEFAULT, "default")


def _choose_executor(values: dict[str, ResolvedValue], executor: Given | None) -> list[str]:
    """If nobody chose the executor: command if a program is set, else fork if Python tasks are set."""
    set_options = {name for name, value in values.items() if value.value is not None}
    has_python = bool(set_options & {"django", "allowed_task_modules"})
    if executor is None:
        has_program = bool(set_options & {"executor_module", "command"})
        kind = ExecutorKind.FORK if has_python and not has_program else ExecutorKind.COMMAND
        values["executor"] = _default(kind)
        return []
    wanted = values.get("executor")
    if wanted is None or wanted.value is ExecutorKind.COMMAND or has_python:
        return []
    return [
        f"{executor.where}: {wanted.value.value} runs Python tasks; name their modules with --django or "
        "--allowed-task-modules"
    ]


def _choose_program(
    values: dict[str, ResolvedValue], module: Given | None, command: Given | None
) -> list[str]:
    """If both name the program of a task, keep the one that was set in the stronger place."""
    if module is None or command is None:
        return []
    if module.place == command.place:
        return [f"{module.where} and {command.where} both say what runs a task; set only one of them"]
    stronger, weaker = (module, "command") if module.place < command.place else (command, "executor_module")
    values[weaker] = ResolvedValue(None, stronger.place, f"unset by {stronger.source}")
    return []


def _exclude_queues(values: dict[str, ResolvedValue], given: Given | None) -> list[str]:
    queues = values.get("queues")
    if given is None or queues is None or "excluded_queues" not in values:
        return []
    left = queues_left(queues.value, values["excluded_queues"].value or ())
    values["queues"] = replace(queues, value=left)
    django = values.get("django")
    if left or (queues.place is Precedence.DEFAULT and django is not None and django.value):
        return []  # the Django project's queues are read later
    return [f"{given.where}: no queue is left to take tasks from"]


def queues_left(queues: Sequence[str], excluded: Sequence[str]) -> tuple[str, ...]:
    return tuple(queue for queue in queues if queue not in excluded)


def _check_retries(values: Mapping[str, ResolvedValue], given: Given | None) -> list[str]:
    base, longest = values.get("retry_base"), values.get("retry_max")
    if given is None or base is None or longest is None or base.value <= longest.value:
        return []
    return [
        f"{given.where}: the first wait before a retry, {format_duration(base.value)}, "
        f"is longer than the longest, {format_duration(longest.value)}"
    ]


def _fill(values: dict[str, ResolvedValue], name: str, computed: object) -> None:
    if values[name].value is None:
        values[name] = replace(values[name], value=computed)


def _worker_id(hostname: str, now: datetime) -> str:
    host = "".join(char if char.isascii() and char.isprintable() else "-" for char in hostname)
    return f"worker-{host[:_MAX_HOSTNAME_CHARS]}-{now:%Y%m%dT%H%M%S}"


def _settings(values: Mapping[str, ResolvedValue], sources: Sources) -> Settings:
    found: dict[str, Any] = {option.field or option.name: values[option.name].value for option in OPTIONS}
    found |= {
        "database_url_is_flag": values["database_url"].place is Precedence.FLAG,
        "queues_are_given": values["queues"].place is not Precedence.DEFAULT,
        "excluded_queues": found["excluded_queues"] or (),
        "allowed_task_modules": found["allowed_task_modules"] or (),
        "max_rss_kib": -(-found["max_rss_kib"] // 1024),
        "task_environ": task_environ(sources.environ, sources.env_file_values, found["task_env"]),
    }
    return Settings(**{name: value for name, value in found.items() if name in _FIELDS})
