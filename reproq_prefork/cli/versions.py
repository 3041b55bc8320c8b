"""What `--version` prints: everything that a bug report needs, a line each."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from importlib import metadata

from reproq_prefork import __version__
from reproq_prefork.cli.printing import PROGRAM
from reproq_prefork.store.driver import driver_versions

# Distributions whose version may matter, if they are installed.
OTHERS = (("Django", "django"), ("django-tasks", "django-tasks"))


def versions() -> Iterator[str]:
    yield f"{PROGRAM} {__version__}"
    yield f"Python {platform.python_version()} ({platform.python_implementation()})"
    psycopg, libpq = driver_versions()
    yield f"psycopg {psycopg}"
    yield f"libpq {libpq}"
    for name, distribution in OTHERS:
        try:
            yield f"{name} {metadata.version(distribution)}"
        except metadata.PackageNotFoundError:
            continue
    yield f"platform {platform.platform()}, {_cpus()}"


def _cpus() -> str:
    count = len(os.sched_getaffinity(0))
    return f"{count} CPU" if count == 1 else f"{count} CPUs"
