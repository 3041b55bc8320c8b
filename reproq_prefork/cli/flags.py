"""The flags that are settings, made from the table of options: which command takes which, and their values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click

from reproq_prefork.settings.options import OPTIONS, Group, Option
from reproq_prefork.settings.sources import FlagValue

CONNECTING = tuple(option.name for option in OPTIONS if option.group is Group.WHERE)
ALL = tuple(option.name for option in OPTIONS)

# Distinguishes a setting from a command's own parameter with the same name.
_PREFIX = "setting_"


class SettingFlag(click.Option):
    """A flag that is one of `OPTIONS`. It has no default here: an unset flag is not the default."""

    def __init__(self, option: Option) -> None:
        self.setting = option
        default = option.show_default()
        names = ", ".join(option.variables)
        shown = f"{names}; default: {default}" if default else names
        kind: dict[str, Any] = (
            {"is_flag": True, "default": None}
            if option.is_switch
            else {"metavar": option.kind.metavar, "multiple": option.multiple}
        )
        super().__init__(
            [*option.flags, f"{_PREFIX}{option.name}"],
            help=f"{option.help} [{shown}]",
            expose_value=False,
            callback=_keep,
            **kind,
        )


def _keep(context: click.Context, parameter: click.Parameter, value: FlagValue) -> None:
    assert isinstance(parameter, SettingFlag)
    if value:
        context.meta.setdefault(_key(context), {})[parameter.setting.name] = value


def _key(context: click.Context) -> str:
    # A command and its parents share one `meta`.
    return f"{__name__}:{context.command_path}"


def setting_flags(names: Iterable[str]) -> list[click.Parameter]:
    """The flags of these settings, for the `params` of a command. `given_flags` returns their values."""
    by_name = {option.name: option for option in OPTIONS}
    return [SettingFlag(by_name[name]) for name in names]


def given_flags(context: click.Context) -> dict[str, FlagValue]:
    """The settings on the command line, by option name, before the command's name and after it.

    Raises UsageError for a flag before the name that the command does not take.
    """
    own: dict[str, FlagValue] = context.meta.get(_key(context), {})
    if context.parent is None:
        return own
    taken = {flag.setting.name for flag in context.command.params if isinstance(flag, SettingFlag)}
    before = given_flags(context.parent)
    for flag in context.parent.command.params:
        if isinstance(flag, SettingFlag) and flag.setting.name in before.keys() - taken:
            raise click.UsageError(
                f"{flag.setting.long_flag} before `{context.info_name}` would have no effect: it is for the "
                "workers. If the command has a flag of that name, give it after the command.",
                context,
            )
    return before | own
