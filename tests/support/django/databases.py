"""Databases of the tests' site: made like all others of the tests, with Django pointed at one after the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any

from psycopg.conninfo import conninfo_to_dict

_SETTINGS = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}


def connection_settings(url: str) -> dict[str, Any]:
    """An entry of DATABASES for a URL of libpq; what Django has no name for is among the OPTIONS."""
    parameters = conninfo_to_dict(url)
    named = {name: str(parameters.pop(key, "")) for key, name in _SETTINGS.items()}
    return {"ENGINE": "django.db.backends.postgresql", **named, "OPTIONS": parameters}


def run_async(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """As asyncio.run; the thread in which Django's synchronous code ran meanwhile keeps no connection."""
    from asgiref.sync import sync_to_async
    from django.db import connections

    async def main() -> Any:
        try:
            return await coroutine
        finally:
            await sync_to_async(connections.close_all)()

    return asyncio.run(main())


@contextlib.contextmanager
def pointed_at(url: str) -> Iterator[None]:
    """Django's default connection, in all threads of this process, is to this database meanwhile."""
    from django.db import connections

    settings = connections.settings["default"]
    before = dict(settings)
    connections.close_all()
    settings.update(connection_settings(url))
    try:
        yield
    finally:
        connections.close_all()
        settings.update(before)
