"""What is closed between two tasks: caches that have something to close."""

from __future__ import annotations

import pytest
from django.core.cache import caches
from django.test import override_settings

from reproq_prefork.django.perform.connections import caches_need_closing, close_after_task
from tests.django.app.caches import Connected

PLAIN = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
CONNECTED = {"BACKEND": "tests.django.app.caches.Connected"}
MISSING = {"BACKEND": "tests.django.app.caches.Missing"}


@pytest.mark.parametrize(
    ("others", "needed"),
    [({}, False), ({"other": CONNECTED}, True), ({"other": MISSING}, True), ({"other": {}}, True)],
    ids=["plain", "connected", "missing", "without a backend"],
)
def test_caches_are_closed_if_one_of_them_has_something_to_close(
    others: dict[str, dict[str, str]], needed: bool
) -> None:
    with override_settings(CACHES={"default": PLAIN, **others}):
        assert caches_need_closing() is needed


def test_a_used_cache_is_closed_after_a_task(django_transaction: None) -> None:
    with override_settings(CACHES={"default": CONNECTED}):
        before = Connected.closed
        close_after_task(was_stopped=False, closes_caches=True)
        assert Connected.closed == before, "it was not used"
        caches["default"].set("name", "Ada")
        close_after_task(was_stopped=False, closes_caches=True)
        assert Connected.closed == before + 1
