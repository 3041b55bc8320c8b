"""examples/django_site, started by the commands of its README and used by a browser."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.checkout import CHECKOUT
from tests.support.django.browser import PAGE_TIMEOUT_S, Browser, browser, need_browser
from tests.support.postgres.databases import new_database
from tests.support.postgres.servers import Server
from tests.support.waiting import wait_until

EXAMPLE = CHECKOUT / "examples" / "django_site"
MIGRATE, WORKER, SERVER = re.findall(
    r"^    (python3 manage\.py .*?)(?: +#.*)?$", (EXAMPLE / "README.md").read_text(), re.M
)
START_TIMEOUT_S = 30
STOP_TIMEOUT_S = 20
STEP_S = 0.3  # a report has twelve


@dataclass(frozen=True)
class Site:
    url: str
    worker: psutil.Process  # the one that manage.py became, or started

    def worker_processes(self) -> list[psutil.Process]:
        family = [self.worker, *self.worker.children(recursive=True)]
        return [each for each in family if re.match("reproq-prefork: worker", " ".join(each.cmdline()))]


@pytest.fixture(scope="module")
def site(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    need_browser()
    directory = tmp_path_factory.mktemp("site")
    port = free_port()
    with new_database(server.url) as database_url:
        environ = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # as in an activated .venv
            "DATABASE_URL": database_url,
            "REPORT_STEP_SECONDS": str(STEP_S),
            "PYTHONUNBUFFERED": "1",
        }
        subprocess.run(
            shlex.split(MIGRATE),
            cwd=EXAMPLE,
            env=environ,
            check=True,
            capture_output=True,
            timeout=START_TIMEOUT_S,
        )
        serve = f"{SERVER} --noreload 127.0.0.1:{port}"
        with (
            running(WORKER, environ, directory / "worker.log") as worker,
            running(serve, environ, directory / "server.log"),
        ):
            url = f"http://127.0.0.1:{port}/"
            wait_until(lambda: answers(port), START_TIMEOUT_S, "the site to answer")
            yield Site(url, psutil.Process(worker))


@contextlib.contextmanager
def running(command: str, environ: dict[str, str], log: Path) -> Iterator[int]:
    with (
        log.open("wb") as output,
        subprocess.Popen(
            shlex.split(command),
            cwd=EXAMPLE,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as process,
    ):
        try:
            yield process.pid
            assert process.poll() is None, f"{command} has ended:\n{log.read_text()}"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def page(site: Site, fresh_browser: Browser) -> Browser:
    fresh_browser.open(site.url)
    return fresh_browser


def order(page: Browser, year: str) -> None:
    page.choose("Year", year)
    page.click("Make the report")


def wait_for_progress(page: Browser, *, beyond: int) -> int:
    """How many months the progress bar shows, once they are more than `beyond`."""

    def shown() -> int:
        months = page.driver.execute_script("return document.querySelector('progress')?.value ?? -1")
        return int(months) if months > beyond else 0

    return wait_until(shown, PAGE_TIMEOUT_S, f"more than {beyond} months to be done")


def expect_report(page: Browser, year: str) -> None:
    assert page.wait_for_text("#state", "Ready", "Failed", "Cancelled") == "Ready"
    assert page.text("h1").split() == ["Sales", "of", year, "Ready"]
    amounts = [int(text.replace(",", "")) for text in page.texts("tbody td:nth-child(2)")]
    assert (len(amounts), page.text("caption strong")) == (12, f"{sum(amounts):,} €")


def test_a_report_is_ordered_watched_and_read(page: Browser) -> None:
    order(page, "2024")
    page.wait_for_text("#state", "Running")
    some = wait_for_progress(page, beyond=0)
    more = wait_for_progress(page, beyond=some)
    assert more < 12
    assert re.fullmatch(r"Adding up [A-Z][a-z]+ 2024", page.text("#step"))
    expect_report(page, "2024")
    page.click("Order another report")
    assert page.texts(".list li") == ["Sales of 2024\nReady"]
    assert page.complaints() == []


def test_a_report_is_cancelled(page: Browser) -> None:
    order(page, "2023")
    wait_for_progress(page, beyond=0)
    page.click("Cancel")
    assert page.wait_for_text("#state", "Ready", "Failed", "Cancelled") == "Cancelled"
    told = re.fullmatch(r"This report was cancelled after (\d+) of 12 months\.", page.text("p.card"))
    assert told
    assert 0 < int(told[1]) < 12


def test_a_killed_worker_costs_a_report_nothing_but_time(site: Site, page: Browser) -> None:
    order(page, "2022")
    wait_for_progress(page, beyond=0)
    workers = site.worker_processes()
    assert workers
    for worker in workers:
        worker.kill()
    expect_report(page, "2022")


def test_without_javascript_the_page_reloads_itself(site: Site, tmp_path: Path) -> None:
    with browser(tmp_path / "profile", javascript=False) as page:
        page.open(site.url)
        order(page, "2021")
        element = wait_until(
            lambda: page.driver.find_elements("xpath", "//table/caption/strong"), PAGE_TIMEOUT_S, "the report"
        )
        assert element[0].text.endswith("€")


def test_a_report_is_visible_only_to_its_owner(site: Site, page: Browser) -> None:
    order(page, "2026")
    wait_until(lambda: page.text("#state"), PAGE_TIMEOUT_S, "the page of the report")
    url = page.driver.current_url
    for address in (url, f"{url}state"):  # without the browser's cookie
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            urllib.request.urlopen(address, timeout=PAGE_TIMEOUT_S)  # noqa: S310
        refused.value.close()
