"""Settings that come from sources which a test makes up."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from reproq_prefork.settings.resolve import Resolved, resolve
from reproq_prefork.settings.sources import FlagValue, Sources

CHDIR = Path("/srv/app/current")
NOW = datetime(2026, 11, 24, 21, 31, 16, tzinfo=UTC)


def resolved(
    flags: Mapping[str, FlagValue] | None = None,
    environ: Mapping[str, str] | None = None,
    env_file: Mapping[str, str] | None = None,
    config: Mapping[str, str] | None = None,
    problems: tuple[str, ...] = (),
    warnings: tuple[str, ...] = (),
    hostname: str = "db-7",
    cpu_count: int = 4,
) -> Resolved:
    sources = Sources(
        flags or {},
        environ or {},
        CHDIR,
        None if env_file is None else Path(".env"),
        env_file or {},
        None if config is None else Path("reproq.toml"),
        config or {},
        problems,
        warnings,
    )
    return resolve(sources, hostname=hostname, now=NOW, cpu_count=cpu_count)
