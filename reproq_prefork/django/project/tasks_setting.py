"""The setting `TASKS`: which of its entries are ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string


@dataclass(frozen=True, slots=True)
class Entry:
    """One backend of ours. `queues` is empty if tasks may name any queue."""

    alias: str
    queues: tuple[str, ...]
    options: Mapping[str, Any]


def own_entries(*, skip_broken: bool = False) -> tuple[Entry, ...]:
    """The entries whose BACKEND is ReproqBackend or a subclass of it.

    Raises ImportError if a BACKEND cannot be imported; with `skip_broken`, such an entry is skipped.
    """
    return tuple(_own_entries(skip_broken))


def _own_entries(skip_broken: bool) -> Iterator[Entry]:
    # Django 5.2 has no tasks, so it has no default for this setting.
    for alias, params in getattr(settings, "TASKS", {}).items():
        try:
            backend_class = import_string(params["BACKEND"])
        except ImportError:
            if not skip_broken:
                raise
            continue
        if is_own(backend_class):
            # As the base class of all backends reads them.
            queues = tuple(params.get("QUEUES", ["default"]))
            yield Entry(alias, queues, params.get("OPTIONS") or {})


def is_own(backend_class: object) -> bool:
    return (
        isinstance(backend_class, type) and getattr(backend_class, "keeps_runs_in_task_runs", False) is True
    )
