"""Others than sessions hold back the removal of dead rows too, and are named."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psycopg

from reproq_prefork.cli.commands.horizon import held_back
from reproq_prefork.demo.postgres import EmbeddedPostgres
from reproq_prefork.store.horizon import HorizonHolder, horizon_holders
from tests.support.postgres.replica import replica_of
from tests.support.postgres.servers import embedded_server
from tests.support.supervisor.supervisor import Connection
from tests.support.unix.memory import shared_memory
from tests.support.waiting import wait_until


def holders(connection: Connection) -> dict[str, HorizonHolder]:
    return {holder.kind: holder for holder in horizon_holders(connection, min_held_s=0.0, min_transactions=1)}


def test_a_forgotten_prepared_transaction_is_reported() -> None:
    with (
        tempfile.TemporaryDirectory(prefix="reproq-tests-", dir=shared_memory()) as name,
        EmbeddedPostgres(Path(name), settings={"fsync": "off", "max_prepared_transactions": "1"}) as server,
        psycopg.connect(server.url, autocommit=True) as connection,
    ):
        connection.execute("create table more (n integer)")
        connection.execute("begin")
        connection.execute("insert into more values (1)")
        connection.execute("prepare transaction 'left behind'")
        said = held_back(holders(connection)["prepared"])
        assert 'The prepared transaction "left behind" of login postgres, database postgres' in said
        assert "ROLLBACK PREPARED" in said
        connection.execute("rollback prepared 'left behind'")
        assert holders(connection) == {}


def test_a_replica_and_its_slot_are_reported_with_the_number_of_transactions_they_hold_back() -> None:
    with embedded_server() as primary, psycopg.connect(primary.url, autocommit=True) as connection:
        with replica_of(primary) as replica:
            with psycopg.connect(replica.url, autocommit=True) as administrator:
                administrator.execute("alter system set hot_standby_feedback = on")
                administrator.execute("alter system set wal_receiver_status_interval = 1")
                administrator.execute("select pg_reload_conf()")
            with psycopg.connect(replica.url) as report:
                report.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                report.execute("select 1")
                wait_until(lambda: "replica" in burnt(connection), 20, "the replica's feedback")
                said = held_back(holders(connection)["replica"])
                assert 'The replica "' in said
                assert "hot_standby_feedback" in said
                assert holders(connection)["replica"].held_s is None

                connection.execute("select pg_create_physical_replication_slot('standby', true)")
                with psycopg.connect(replica.url, autocommit=True) as administrator:
                    administrator.execute("alter system set primary_slot_name = 'standby'")
                    administrator.execute("select pg_reload_conf()")
                wait_until(lambda: "slot" in burnt(connection), 20, "the slot to have the feedback")
        # The replica is gone for good, and its slot stays.
        said = held_back(holders(connection)["slot"])
        assert 'The replication slot "standby", inactive, holds back vacuum for' in said
        assert "drop it: select pg_drop_replication_slot" in said


def burnt(connection: Connection) -> dict[str, HorizonHolder]:
    """Who is named after one transaction more."""
    connection.execute("select pg_current_xact_id()")
    return holders(connection)
