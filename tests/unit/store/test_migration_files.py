"""The files of the migrations. The plan itself is tested against a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from reproq_prefork.store.migration_files import known_migrations


def test_versions_count_up_without_a_gap() -> None:
    known = known_migrations()
    assert [each.version for each in known] == list(range(1, len(known) + 1))
    assert all(each.down for each in known)


def test_an_installation_without_migrations_says_so(tmp_path: Path) -> None:
    (tmp_path / "0001_initial.py").touch()
    with pytest.raises(FileNotFoundError, match="this installation is incomplete"):
        known_migrations([tmp_path, tmp_path / "absent"])
