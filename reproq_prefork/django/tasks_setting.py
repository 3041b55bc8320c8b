"""The setting `TASKS`: which of its entries are ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string


@dataclass(frozen=True, slots=True)
class Entry:
    """One backend of ours. `queues` is empty where tasks may name any queue."""

    alias: str
    queues: tuple[str, ...]
    options: Mapping[str, Any]


def own_entries() -> tuple[Entry, ...]:
    """The entries whose BACKEND is ReproqBackend or a class made from it.

    Raises ImportError where a BACKEND cannot be imported, which is said of those of others by Django itself.
    """
    return tuple(_own_entries())


def _own_entries() -> Iterator[Entry]:
    # Django 5.2, which has no tasks of its own, has no default for this setting either.
    for alias, params in getattr(settings, "TASKS", {}).items():
        if is_own(import_string(params["BACKEND"])):
            # As the base class of all backends reads them.
            queues = tuple(params.get("QUEUES", ["default"]))
            yield Entry(alias, queues, params.get("OPTIONS") or {})


def is_own(backend_class: object) -> bool:
    own = import_string("reproq_prefork.django.ReproqBackend")
    return isinstance(backend_class, type) and issubclass(backend_class, own)
