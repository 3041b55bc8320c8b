"""The admin in a real browser: that it works by mouse and keyboard, and can be read in both themes.

With REPROQ_SCREENSHOTS=docs/images it takes the pictures of docs/admin.md anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.test import Client
from django.test.testcases import LiveServerThread

from reproq_prefork.django.models import TaskRun
from tests.support.django.browser import Browser
from tests.support.django.runs import add_run, add_worker
from tests.support.waiting import wait_until

WIDTH, HEIGHT = 1440, 940
MIN_CONTRAST = 4.5  # of WCAG 2.2, level AA

TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/tasks.py", line 41, in send_receipt
    order = Order.objects.get(pk=order_id)
  File "/srv/venv/lib/python3.12/site-packages/django/db/models/query.py", line 633, in get
    raise self.model.DoesNotExist(
shop.models.Order.DoesNotExist: Order matching query does not exist."""

# The contrast of an element's text with the ground that it stands on, by WCAG's formula.
CONTRAST = """
const luminance = colour => {
    const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map(Number).map(value => value / 255)
        .map(value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = element => {
    for (; element; element = element.parentElement) {
        const colour = getComputedStyle(element).backgroundColor;
        if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
};
const text = luminance(getComputedStyle(arguments[0]).color), behind = luminance(ground(arguments[0]));
return (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05);
"""
# What can be used and has no name for who cannot see it.
NAMELESS = """
return [...document.querySelectorAll("#content :is(input:not([type=hidden]), select, button, a)")]
    .filter(each => !(each.labels?.length || each.ariaLabel || each.textContent.trim() || each.value))
    .map(each => each.outerHTML);
"""


@pytest.fixture
def site(django_database: str) -> Iterator[str]:
    """The address of the tests' site, served to anybody on this host."""
    server = LiveServerThread("127.0.0.1", StaticFilesHandler, connections_override={})
    server.daemon = True
    server.start()
    server.is_ready.wait()
    assert server.error is None
    yield f"http://127.0.0.1:{server.port}"
    server.terminate()


@pytest.fixture
def browser(site: str, fresh_browser: Browser) -> Iterator[Any]:
    """Chromium, logged in as somebody who may do everything."""
    chrome = fresh_browser.driver
    chrome.set_window_size(WIDTH, HEIGHT)
    client = Client()
    client.force_login(User.objects.create_superuser("ada"))
    chrome.get(f"{site}/admin/login/")
    chrome.add_cookie({"name": "sessionid", "value": client.cookies["sessionid"].value})
    yield chrome
    assert [each for each in fresh_browser.complaints() if "favicon" not in each] == []


@pytest.fixture
def runs() -> dict[str, int]:
    """What a shop has to do; the ids of some of it by what they are for."""
    add_worker("worker-web-1-20261124T213116.0", host="web-1", queues=("default", "mail"))
    add_worker("worker-web-1-20261124T213116.1", host="web-1", queues=("default", "mail"))
    add_worker("worker-web-2-20261124T213118.0", host="web-2", queues=("reports",), lease="-7 s")
    done: dict[str, Any] = {"status": "SUCCESSFUL", "attempts": 1, "result": {"sent": True}}
    for minutes in range(58, 22, -3):
        add_run(
            task=("shop.tasks.send_receipt", "shop.tasks.resize_photo")[minutes % 2],
            queue_name=("mail", "default")[minutes % 2],
            enqueued_at=_ago(minutes * 60),
            last_attempted_at=_ago(minutes * 60 - 1),
            finished_at=_ago(minutes * 60 - 1 - minutes / 20),
            **done,
        )
    failed = add_run(
        queue_name="mail",
        status="FAILED",
        attempts=2,
        max_attempts=2,
        enqueued_at=_ago(1200),
        started_at=_ago(1199),
        last_attempted_at=_ago(1190),
        finished_at=_ago(1188.7),
        worker_ids=["worker-web-1-20261124T213116.1", "worker-web-1-20261124T213116.0"],
        unique_key="receipt-1842",
        timeout_seconds=30,
        errors=[
            {
                "attempt": 1,
                "kind": "timeout",
                "message": "the task ran longer than its timeout of 30 s",
                "exit": "killed by signal 9 (SIGKILL)",
                "cpu_seconds": 0.41,
                "peak_rss_kib": 87_400,
                "worker": "worker-web-1-20261124T213116.1",
            },
            {
                "attempt": 2,
                "kind": "failed",
                "exception": "shop.models.Order.DoesNotExist",
                "message": "Order matching query does not exist.",
                "traceback": TRACEBACK,
                "exit": "exit status 1",
                "cpu_seconds": 0.052,
                "peak_rss_kib": 86_912,
                "worker": "worker-web-1-20261124T213116.0",
                "output": "looking for order 1842",
            },
        ],
    )
    replay = add_run(
        queue_name="mail",
        status="RUNNING",
        attempts=1,
        replay_of=failed,
        enqueued_at=_ago(40),
        started_at=_ago(12),
        last_attempted_at=_ago(12),
        leased_by="worker-web-1-20261124T213116.0",
    )
    add_run(task="shop.tasks.monthly_report", queue_name="reports", status="CANCELLED", enqueued_at=_ago(30))
    add_run(task=None, payload={"order": 1842, "sku": "teapot"}, queue_name="warehouse", enqueued_at=_ago(21))
    add_run(task="shop.tasks.rebuild_index", priority=-10, enqueued_at=_ago(9), run_after="tomorrow")
    waiting = add_run(task="shop.tasks.charge_card", priority=50, max_attempts=1, enqueued_at=_ago(2))
    return {"failed": failed, "replay": replay, "waiting": waiting}


def _ago(seconds: float) -> Any:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def by_css(browser: Any, selector: str) -> list[Any]:
    return list(browser.find_elements("css selector", selector))


def open_page(browser: Any, site: str, path: str, theme: str = "light") -> None:
    browser.get(f"{site}{path}")
    browser.execute_script("localStorage.setItem('theme', arguments[0])", theme)
    browser.get(f"{site}{path}")


def pages(runs: dict[str, int]) -> dict[str, str]:
    return {
        "admin-runs": "/admin/reproq_prefork/taskrun/",
        "admin-run": f"/admin/reproq_prefork/taskrun/{runs['failed']}/change/",
        "admin-queues": "/admin/reproq_prefork/taskrun/queues/",
        "admin-workers": "/admin/reproq_prefork/worker/",
    }


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_pages_are_accessible_to_all_users(
    theme: str, browser: Any, site: str, runs: dict[str, int], tmp_path: Path
) -> None:
    kept = Path(os.environ.get("REPROQ_SCREENSHOTS", tmp_path)) if theme == "light" else tmp_path
    for name, path in pages(runs).items():
        open_page(browser, site, path, theme)
        assert browser.execute_script(NAMELESS) == [], path
        for each in by_css(
            browser, ".reproq-badge, .reproq-bad, .reproq-quiet, .reproq-run pre, .reproq-run dt"
        ):
            assert browser.execute_script(CONTRAST, each) >= MIN_CONTRAST, (path, each.text)
        wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.execute_script(wide) <= 0, path
        browser.save_screenshot(str(kept / f"{name}.png"))


def test_a_run_is_cancelled_from_the_list(browser: Any, site: str, runs: dict[str, int]) -> None:
    open_page(browser, site, pages(runs)["admin-runs"])
    (box,) = by_css(browser, f"input.action-select[value='{runs['waiting']}']")
    box.click()
    (choice,) = by_css(browser, "select[name=action] option[value=cancel_runs]")
    choice.click()
    (go,) = by_css(browser, "button[name=index]")
    go.click()
    (message,) = wait_until(lambda: by_css(browser, ".messagelist li"), 10, "a message")
    assert message.text == f"Run {runs['waiting']}: cancelled."
    assert TaskRun.objects.get(pk=runs["waiting"]).status == "CANCELLED"


def test_a_priority_is_changed_on_the_page_of_a_run(browser: Any, site: str, runs: dict[str, int]) -> None:
    open_page(browser, site, f"/admin/reproq_prefork/taskrun/{runs['waiting']}/change/")
    (field,) = by_css(browser, "input[name=priority]")
    field.clear()
    field.send_keys("77\n")
    (message,) = wait_until(lambda: by_css(browser, ".messagelist li"), 10, "a message")
    assert message.text == f"Run {runs['waiting']}: priority 77."
