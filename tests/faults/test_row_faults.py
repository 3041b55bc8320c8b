"""Row 37 of the fault list: what is done to a run while somebody is at it."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from reproq_prefork import cancel, requeue
from reproq_prefork.errors import UniqueKeyHeld
from tests.support.supervisor.supervisor import (
    Connection,
    Supervisor,
    add_run,
    run_row,
    wait_for_start,
    wait_for_status,
)
from tests.support.waiting import wait_until


def test_37_a_run_that_is_deleted_under_its_worker_is_forgotten(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=1) as supervisor:
        worker = supervisor.worker_pids()
        run_id = add_run(connection, {"wait_for": str(tmp_path / "go"), "diary": str(tmp_path / "diary")})
        wait_for_start(tmp_path / "diary")
        connection.execute("delete from task_runs where id = %s", [run_id])
        (tmp_path / "go").touch()
        wait_for_status(connection, add_run(connection, {}), "SUCCESSFUL")
        assert connection.execute("select count(*) from task_runs where id = %s", [run_id]).fetchone() == (0,)
        assert supervisor.worker_pids() == worker


def test_37_a_worker_does_not_record_a_run_that_was_taken_from_it(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    """An operator has reset it by hand, so its worker has lost it, whatever the result is."""
    pages = tmp_path / "diary"
    with Supervisor(database_url, tmp_path, workers=2) as supervisor:
        run_id = add_run(
            connection, {"wait_for": str(tmp_path / "go"), "diary": str(pages), "exit": 3, "fail_attempts": 1}
        )
        wait_for_start(pages)
        connection.execute(
            "update task_runs set status = 'PENDING', leased_by = null, lease_expires_at = null where id = %s",
            [run_id],
        )
        wait_until(lambda: run_row(connection, run_id)["claims"] == 2, 10, "the other worker to claim it")
        (tmp_path / "go").touch()
        row = wait_for_status(connection, run_id, "SUCCESSFUL")
        assert row["attempts"] == 2
        assert row["result"]["attempt"] == 2
        assert "exit" not in str(row["errors"])
        assert supervisor.stop() == 0


def test_37_a_replay_of_a_running_run_is_a_new_run(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=2):
        run_id = add_run(connection, {"wait_for": str(tmp_path / "go")})
        wait_for_status(connection, run_id, "RUNNING")
        replay = requeue(connection, run_id=run_id)
        wait_for_status(connection, replay.id, "RUNNING")
        (tmp_path / "go").touch()
        for each in (run_id, replay.id):
            assert wait_for_status(connection, each, "SUCCESSFUL")["attempts"] == 1
        assert run_row(connection, replay.id)["replay_of"] == run_id


def test_37_a_replay_of_a_key_that_is_held_is_refused_and_a_cancel_ends_the_holder(
    database_url: str, connection: Connection, tmp_path: Path
) -> None:
    with Supervisor(database_url, tmp_path, workers=1):
        run_id = add_run(connection, {"wait_for": str(tmp_path / "go")}, unique_key="one at a time")
        wait_for_status(connection, run_id, "RUNNING")
        with pytest.raises(UniqueKeyHeld):
            requeue(connection, run_id=run_id)
        cancel(connection, run_id)
        row = wait_for_status(connection, run_id, "CANCELLED")
        assert row["claims"] == 1
        (tmp_path / "go").touch()
        assert (
            wait_for_status(connection, requeue(connection, run_id=run_id).id, "SUCCESSFUL")["attempts"] == 1
        )


@pytest.mark.parametrize("status", ["SUCCESSFUL", "FAILED", "CANCELLED"])
def test_37_a_finished_run_does_not_change(connection: Connection, status: str) -> None:
    run_id = add_run(connection, {}, status=status)
    assert cancel(connection, run_id).status.value == status
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
        connection.execute("update task_runs set payload = '1' where id = %s", [run_id])
