"""What the server itself notes of a storm, by triggers that only a storm has, and what its tasks write there."""

from __future__ import annotations

from tests.support.supervisor.supervisor import Connection

# For `stall`: a commit waits for a standby only where the session asks for it.
SETTINGS = {
    "wal_level": "replica",
    "max_wal_senders": "1",
    "synchronous_standby_names": "nobody",
    "synchronous_commit": "local",
}


def install(connection: Connection) -> None:
    """Tables of status changes, of runs with a unique key, and of effects.

    The triggers act by the rights of their owner: who changes a run may not write here.
    """
    connection.execute(
        "create table audit (run_id bigint, old_status text, new_status text, claims bigint,"
        "                    error_kind text, leased_by text, at timestamptz);"
        "create function note() returns trigger language plpgsql security definer"
        " set search_path = public as $$ begin"
        "  insert into audit values (new.id, old.status, new.status, new.claims,"
        "    case when new.errors <> old.errors then new.errors -> -1 ->> 'kind' end, new.leased_by,"
        "    clock_timestamp());"
        "  return null;"
        "end $$;"
        "create trigger note after update on task_runs for each row"
        "  when (old.status <> new.status) execute function note();"
        "create table added (run_id bigint, at timestamptz);"
        "create function note_added() returns trigger language plpgsql security definer"
        " set search_path = public as $$ begin"
        "  insert into added values (new.id, clock_timestamp()); return null;"
        "end $$;"
        "create trigger note_added after insert on task_runs for each row"
        "  when (new.unique_key is not null) execute function note_added();"
        # What a backend in this table commits waits for a standby that there is not.
        "create table stalls (backend integer);"
        "create function stall() returns trigger language plpgsql security definer as $$ begin"
        "  if exists (select from public.stalls where backend = pg_backend_pid()) then"
        "    perform set_config('synchronous_commit', 'on', true);"
        "  end if;"
        "  return null;"
        "end $$;"
        "create trigger stall after update on task_runs for each statement execute function stall();"
        "create table effects (run_id bigint, claim bigint);"
        "grant insert on effects to reproq_worker"
    )
