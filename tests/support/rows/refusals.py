"""Triggers that refuse what is written about some runs, as an application's own may do for ever."""

from __future__ import annotations

from tests.support.supervisor.supervisor import Connection

ANY_CHANGE = "true"
ANY_END = "new.status <> 'RUNNING'"
SUCCESS_WITH_A_RESULT = "new.status = 'SUCCESSFUL' and new.result is not null"
RESULT_OR_ERRORS = "new.result is not null or new.errors <> old.errors"


def refuse(
    connection: Connection, *, what: str, code: str = "P0001", raises: str = "raise exception 'not this run'"
) -> None:
    """From now on the server refuses `what` (a condition) of each run that `doom` names."""
    statement = f"{raises} using errcode = '{code}'" if raises.startswith("raise") else raises
    connection.execute(
        "create table if not exists doomed (id bigint primary key);"
        # By the rights of its owner: who changes a run may not read that table.
        "create or replace function refuse() returns trigger language plpgsql security definer"
        " set search_path = public as $$ begin"
        f"  if exists (select from doomed where id = old.id) and ({what}) then {statement}; end if;"
        "  return new;"
        "end $$;"
        "drop trigger if exists refuse on task_runs;"
        "create trigger refuse before update on task_runs for each row execute function refuse()".encode()
    )


def doom(connection: Connection, *run_ids: int) -> None:
    for run_id in run_ids:
        connection.execute("insert into doomed values (%s)", [run_id])


def relent(connection: Connection) -> None:
    """Everything is taken again."""
    connection.execute("delete from doomed")
