"""A log of every change of a run's status, kept by the server: what the table went through."""

from __future__ import annotations

from collections import Counter

from reproq_prefork.model.run import FINAL_STATUSES
from tests.support.supervisor.supervisor import Connection


def install(connection: Connection) -> None:
    connection.execute(
        "create table audit (run_id bigint, old_status text, new_status text, claims bigint, at timestamptz);"
        # By the rights of its owner: who changes a run may not write here.
        "create function note() returns trigger language plpgsql security definer"
        " set search_path = public as $$ begin"
        "  insert into audit values (new.id, old.status, new.status, new.claims, clock_timestamp()); return null;"
        "end $$;"
        "create trigger note after update on task_runs for each row"
        "  when (old.status <> new.status) execute function note()"
    )


def edges(connection: Connection) -> set[tuple[str, str]]:
    """Every change that there was."""
    return {
        (old, new) for old, new in connection.execute("select distinct old_status, new_status from audit")
    }


def final_transitions(connection: Connection) -> Counter[int]:
    """How often each run has ended, by its id."""
    rows = connection.execute(
        "select run_id, count(*) from audit where new_status = any (%s) group by 1", [list(FINAL_STATUSES)]
    )
    return Counter(dict(rows.fetchall()))
