"""Waits for the end of the run of a result. See `store.waiting`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from reproq_prefork.django.families.results import database_of
from reproq_prefork.django.sender import DjangoSender
from reproq_prefork.store import waiting

_log = logging.getLogger("reproq_prefork.django")


def wait(result: Any, timeout: float | None) -> Any:
    """See TaskResult.wait()."""

    def look() -> bool:
        result.refresh()
        return bool(result.is_finished)

    waiting.wait(_awaited(result), look, timeout)
    return result


async def await_(result: Any, timeout: float | None) -> Any:
    """See TaskResult.await_()."""

    async def look() -> bool:
        await result.arefresh()
        return bool(result.is_finished)

    await waiting.await_(_awaited(result), look, timeout)
    return result


def _awaited(result: Any) -> waiting.Awaited:
    return waiting.Awaited(int(result.id), f"task {result.id}", _log, lambda: _parameters(result))


def _parameters(result: Any) -> Mapping[str, Any]:
    return DjangoSender(database_of(result)).connection_parameters()
