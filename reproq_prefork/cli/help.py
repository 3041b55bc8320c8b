"""The help: first the commands, then the settings in groups, then examples and exit statuses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from reproq_prefork.cli.flags import SettingFlag
from reproq_prefork.cli.printing import complain, take_not_printed
from reproq_prefork.errors import ExitStatus
from reproq_prefork.settings.options import Group


class HelpfulCommand(click.Command):
    """A command whose help shows its own flags first, then the settings by group.

    If it has committed something and could not print that, it ends with NotPrinted.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
        except BaseException:
            unprinted = take_not_printed(ctx)
            if unprinted is not None:
                complain(str(unprinted))
            raise
        unprinted = take_not_printed(ctx)
        if unprinted is not None:
            raise unprinted
        return result

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = []
        settings: dict[Group, list[tuple[str, str]]] = {group: [] for group in Group}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None or isinstance(parameter, click.Argument):
                continue
            if isinstance(parameter, SettingFlag):
                settings[parameter.setting.group].append(record)
            else:
                own.append(record)
        with formatter.section("Options"):
            formatter.write_dl(own)
        for group, shown in settings.items():
            if shown:
                with formatter.section(group.value):
                    formatter.write_dl(shown)


class HelpfulGroup(HelpfulCommand, click.Group):
    """The program itself. Its commands come first."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        HelpfulCommand.format_options(self, ctx, formatter)


def verbatim(title: str, lines: Sequence[str]) -> str:
    r"""A paragraph that click does not rewrap (`\b`)."""
    return "\n".join(["\b", title, *(f"  {line}" for line in lines)])


def exit_statuses(shown: Sequence[ExitStatus]) -> str:
    return verbatim("Exit statuses:", [f"{status.value}  {status.description}" for status in shown])
