from __future__ import annotations

import pickle

import pytest

from reproq_prefork import errors
from reproq_prefork.errors import ExitStatus, ReproqError

ONE_OF_EACH: list[ReproqError] = [
    errors.ReproqError("Something failed."),
    errors.SettingsError(["REPROQ_WORKERS (environment): too many.", "QUEUE_NAME (environment): empty."]),
    errors.DatabaseUnavailable("postgresql://db/app", "connection refused"),
    errors.DatabaseIsCopy(
        "stage at db:5432", "the database app (oid 16384)", "the database stage (oid 16999)"
    ),
    errors.SchemaMismatch(found=None, needed=3),
    errors.SchemaMismatch(found=2, needed=3, tampered=["0001_task_runs"]),
    errors.RunNotFound(run_id=7),
    errors.RunNotFound(spec_hash="ab" * 32),
    errors.UniqueKeyHeld("nightly", 12),
    errors.AlreadyRunning(4711, "/run/reproq.pid"),
]


def test_exit_statuses_are_a_public_contract() -> None:
    assert {member.name: int(member) for member in ExitStatus} == {
        "OK": 0,
        "FAILURE": 1,
        "USAGE": 2,
        "BOOT_FAILED": 3,
        "NOT_FOUND": 4,
        "CONFLICT": 5,
        "DATABASE_UNAVAILABLE": 6,
        "SCHEMA_MISMATCH": 7,
        "ALREADY_RUNNING": 8,
        "LEASE_LOST": 9,
        "DATABASE_IS_COPY": 10,
        "NOT_PRINTED": 11,
    }


@pytest.mark.parametrize("status", ExitStatus)
def test_each_exit_status_describes_itself_in_a_sentence(status: ExitStatus) -> None:
    assert status.description[0].isupper()
    assert status.description.endswith(".")


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: type(error).__name__)
def test_an_error_survives_a_pipe_with_its_sentence_and_its_values(error: ReproqError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def test_every_cause_has_its_own_exit_status() -> None:
    causes = [cause for cause in ReproqError.__subclasses__() if cause.__module__ == errors.__name__]
    assert len(causes) == len({cause.exit_status for cause in causes} - {ExitStatus.FAILURE})


def test_a_missing_run_is_named_by_its_id_or_its_hash() -> None:
    assert "the id 7 " in str(errors.RunNotFound(run_id=7))
    assert "the spec hash " + "ab" * 32 in str(errors.RunNotFound(spec_hash="ab" * 32))


def test_a_missing_run_is_named_by_either_an_id_or_a_hash() -> None:
    with pytest.raises(ValueError, match="not both"):
        errors.RunNotFound()
    with pytest.raises(ValueError, match="not both"):
        errors.RunNotFound(run_id=7, spec_hash="ab" * 32)


def test_a_held_unique_key_names_its_holder() -> None:
    sentence = str(errors.UniqueKeyHeld("nightly", 12))
    assert '"nightly"' in sentence
    assert "run 12" in sentence


@pytest.mark.parametrize(
    ("found", "cure"),
    [(None, "reproq-prefork migrate"), (2, "reproq-prefork migrate"), (4, "newer release")],
)
def test_a_schema_mismatch_says_which_side_to_upgrade(found: int | None, cure: str) -> None:
    assert cure in str(errors.SchemaMismatch(found=found, needed=3))


def test_a_missing_schema_says_where_it_was_looked_for_and_what_to_do() -> None:
    plain = errors.SchemaMismatch(None, 3, database="app", search_path="public")
    assert str(plain) == (
        "The database app has no reproq schema in its search path (public); this release needs version 3. "
        "Run `reproq-prefork migrate`."
    )
    assert "Run `manage.py migrate`." in str(errors.SchemaMismatch(None, 3, migrate="manage.py migrate"))
    assert "Run `manage.py migrate`." in str(errors.SchemaMismatch(2, 3, migrate="manage.py migrate"))
    elsewhere = str(errors.SchemaMismatch(None, 3, database="app", search_path="public", elsewhere=["jobs"]))
    assert "There is one in the schema jobs: set the search path of this login to it" in elsewhere


@pytest.mark.parametrize(
    ("reason", "cure"),
    [
        (
            'connection to server at "h", port 1 failed: Connection refused',
            "No server listens there: start it",
        ),
        ("the name h cannot be resolved: Name or service not known", "Correct the host in DATABASE_URL"),
        ('FATAL:  password authentication failed for user "u"', "Correct the user and the password"),
        ('FATAL:  database "x" does not exist', "Create it on the server, or correct its name"),
        ('FATAL:  role "x" does not exist', "Create it on the server, or correct its name"),
        ("no answer from this address within 5 s", "no firewall is in between"),
        ('FATAL:  no pg_hba.conf entry for host "1.2.3.4"', "pg_hba.conf"),
        ("FATAL:  sorry, too many clients already", "Raise max_connections"),
        ("it is a standby.", "Check that it runs"),
    ],
)
def test_an_unavailable_database_says_what_was_found_and_what_to_do(reason: str, cure: str) -> None:
    sentence = str(errors.DatabaseUnavailable("x at h:1", reason))
    assert sentence.startswith(f"The database x at h:1 cannot be used: {reason.rstrip('.')}. ")
    assert cure in sentence


def test_a_tampered_schema_names_the_files() -> None:
    error = errors.SchemaMismatch(found=3, needed=3, tampered=["0001_task_runs", "0002_workers"])
    assert "0001_task_runs, 0002_workers" in str(error)


def test_all_settings_problems_are_reported_at_once() -> None:
    error = errors.SettingsError(["First.", "Second."])
    assert str(error) == "First.\nSecond."
