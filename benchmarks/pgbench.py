"""The limit: one of our own statements, sent by pgbench. No Python takes part.

A statement of the store has psycopg's named placeholders. Those that stay the same become literals, and those that
carry what the call before has returned become variables of pgbench, which `\\gset` sets from the reply.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.children import output_of
from benchmarks.servers import pg_environ
from reproq_prefork.store.statements import statement

PGBENCH = "pgbench"
OURS = {"PGOPTIONS": "-c plan_cache_mode=force_generic_plan"}  # as on every connection of ours
_PLACEHOLDER = re.compile(r"%\((\w+)\)s")
_LONE_COLON = re.compile(r"(?<!:):(?=\w)")
_FINAL_SELECT = re.compile(r"\)\nselect\b", re.IGNORECASE)
_RATE = re.compile(r"^tps = ([\d.]+) \(without initial connection time\)", re.MULTILINE)

Literal = str | int | float | bool | None


@dataclass(frozen=True)
class Carried:
    """What one call hands to the next: an expression over the rows of the reply, which `outcome` names."""

    expression: str
    at_first: Literal


@dataclass(frozen=True)
class Script:
    """A statement of `sql/` by name, as one transaction of pgbench."""

    statement: str
    literals: Mapping[str, Literal]
    carried: Mapping[str, Carried]

    def text(self) -> str:
        return script(statement(self.statement), self.literals, self.carried)


def script(sql: str, literals: Mapping[str, Literal], carried: Mapping[str, Carried]) -> str:
    """`sql` as a script of pgbench. Raises KeyError for a placeholder that has neither literal nor variable."""

    def filled(match: re.Match[str]) -> str:
        name = match.group(1)
        return f":{name}" if name in carried else _literal(literals[name])

    # An array's slice is written [:upper]; pgbench would take that for a variable.
    text = _PLACEHOLDER.sub(filled, _LONE_COLON.sub(": ", sql)).replace("%%", "%")
    if carried:
        text = _with_outcome(
            text, ", ".join(f"{each.expression} as {name}" for name, each in carried.items())
        )
    end = "\\gset" if carried else ";"
    return f"{text.rstrip().rstrip(';')}\n{end}\n"


def run(script: Script, url: str, *, clients: int, transactions: int, directory: Path) -> float:
    """Transactions a second. Each of `clients` makes its share of `transactions`."""
    program = shutil.which(PGBENCH)
    if program is None:
        raise FileNotFoundError("pgbench is not installed: apt-get install postgresql-contrib has it")
    path = directory / "limit.sql"
    path.write_text(script.text())
    variables = [f"--define={name}={_plain(each.at_first)}" for name, each in script.carried.items()]
    command = [program, "--no-vacuum", "--protocol=prepared", f"--file={path}", *variables]
    command += [
        f"--client={clients}",
        f"--jobs={min(clients, 2)}",
        f"--transactions={transactions // clients}",
    ]
    said = output_of(command, cwd=directory, environ={**pg_environ(url), **OURS, "PATH": "/usr/bin:/bin"})
    rate = _RATE.search(said)
    if rate is None:
        raise RuntimeError(f"pgbench did not say its rate: {said}")
    return float(rate.group(1))


def _with_outcome(text: str, columns: str) -> str:
    """The last SELECT becomes a query of the WITH before it, and what is carried is taken from its rows."""
    *_, final = _FINAL_SELECT.finditer(text)
    head, tail = text[: final.start()], text[final.start() + 2 :]
    return f"{head}),\noutcome as (\n{tail.rstrip().rstrip(';')}\n)\nselect {columns} from outcome"


def _literal(value: Literal) -> str:
    match value:
        case None:
            return "null"
        case bool() | int() | float():
            return str(value).lower()
        case str():
            return "'" + value.replace("'", "''") + "'"


def _plain(value: Literal) -> str:
    return "" if value is None else str(value)
