"""What the server itself notes of a storm, by triggers that only a storm has."""

from __future__ import annotations

from tests.supervisor import Connection


def install(connection: Connection) -> None:
    """Each change of status, with the kind of the error that came with it.

    By the rights of the owner: who changes a run may not write here.
    """
    connection.execute(
        "create table audit (run_id bigint, old_status text, new_status text, claims bigint,"
        "                    error_kind text, at timestamptz);"
        "create function note() returns trigger language plpgsql security definer"
        " set search_path = public as $$ begin"
        "  insert into audit values (new.id, old.status, new.status, new.claims,"
        "    case when new.errors <> old.errors then new.errors -> -1 ->> 'kind' end, clock_timestamp());"
        "  return null;"
        "end $$;"
        "create trigger note after update on task_runs for each row"
        "  when (old.status <> new.status) execute function note()"
    )
