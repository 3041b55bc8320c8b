"""Which servers will do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reproq_prefork.store.server import Server, why_unusable

FIT = Server("18.1", 180001, False, False, "UTF8", "origin", 7001)


@pytest.mark.parametrize(
    ("version", "number", "reason"),
    [
        ("14.0", 140000, ""),
        ("18.1", 180001, ""),
        ("13.22", 130022, "it runs PostgreSQL 13.22, and version 14 or newer is needed"),
        ("9.6.24", 90624, "it runs PostgreSQL 9.6.24, and version 14 or newer is needed"),
    ],
)
@pytest.mark.parametrize("for_writing", [True, False])
def test_an_old_server_is_refused_even_to_read_from(
    version: str, number: int, reason: str, for_writing: bool
) -> None:
    server = replace(FIT, version=version, version_number=number)
    assert why_unusable(server, for_writing=for_writing) == reason


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (
            replace(FIT, is_standby=True, is_read_only=True),
            "it is a hot standby, which cannot be written to; name the primary",
        ),
        (
            replace(FIT, is_read_only=True),
            "it refuses to write, since default_transaction_read_only is on",
        ),
        (replace(FIT, encoding="SQL_ASCII"), "its encoding is SQL_ASCII, and UTF8 is needed"),
        (replace(FIT, encoding="LATIN1"), "its encoding is LATIN1, and UTF8 is needed"),
        (replace(FIT, replication_role="replica"), "the triggers of task_runs would not fire"),
        (replace(FIT, system=7002), "its system identifier is 7002, and this master has worked with 7001"),
    ],
    ids=["standby", "read-only", "SQL_ASCII", "LATIN1", "without triggers", "another server"],
)
def test_a_server_that_cannot_do_the_work_is_refused_with_the_reason_but_may_be_read(
    asked: Server, reason: str
) -> None:
    assert reason in why_unusable(asked, for_writing=True, system=7001)
    assert why_unusable(asked, for_writing=False, system=7001) == ""


@pytest.mark.parametrize(("system", "expected"), [(None, 7001), (7001, None), (7001, 7001)])
def test_a_server_whose_identifier_is_unknown_or_not_checked_is_accepted(
    system: int | None, expected: int | None
) -> None:
    assert why_unusable(replace(FIT, system=system), for_writing=True, system=expected) == ""
