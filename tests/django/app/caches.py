"""A cache that has something to close."""

from __future__ import annotations

from typing import Any

from django.core.cache.backends.locmem import LocMemCache


class Connected(LocMemCache):
    closed = 0

    def close(self, **_kwargs: Any) -> None:
        type(self).closed += 1
