"""Which servers will do. The plan itself is tested against a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from reproq_prefork.migrate import why_unusable
from reproq_prefork.migration_files import known_migrations


@pytest.mark.parametrize(
    ("version", "number", "is_standby", "read_only", "reason"),
    [
        ("14.0", 140000, False, False, ""),
        ("18.1", 180001, False, False, ""),
        ("13.22", 130022, False, False, "it runs PostgreSQL 13.22, and version 14 or newer is needed"),
        ("9.6.24", 90624, False, False, "it runs PostgreSQL 9.6.24, and version 14 or newer is needed"),
        ("16.1", 160001, True, True, "it is a hot standby, which cannot be written to; name the primary"),
        ("16.1", 160001, False, True, "it refuses to write, since default_transaction_read_only is on"),
    ],
)
def test_an_old_server_and_one_that_only_reads_are_refused_with_the_reason(
    version: str, number: int, is_standby: bool, read_only: bool, reason: str
) -> None:
    assert why_unusable(version, number, is_standby, read_only=read_only) == reason


def test_versions_count_up_without_a_gap() -> None:
    known = known_migrations()
    assert [each.version for each in known] == list(range(1, len(known) + 1))
    assert all(each.down for each in known)


def test_an_installation_without_migrations_says_so(tmp_path: Path) -> None:
    (tmp_path / "0001_initial.py").touch()
    with pytest.raises(FileNotFoundError, match="this installation is incomplete"):
        known_migrations([tmp_path, tmp_path / "absent"])
