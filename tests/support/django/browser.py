"""A headless browser: Debian's Chromium with its own driver. Nothing is downloaded for it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.support.waiting import wait_until

PAGE_TIMEOUT_S = 20.0
# It must ask nothing of any network, and runs as root in CI.
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    "--hide-scrollbars",  # in pictures
    "--window-size=1000,900",
)


def need_browser() -> None:
    """Skip the test where there is no browser; in CI that is an error."""
    missing = [program for program in ("chromium", "chromedriver") if shutil.which(program) is None]
    if missing:
        reason = (
            f"{' and '.join(missing)}, of Debian's chromium and chromium-driver, not found on this machine"
        )
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@contextlib.contextmanager
def browser(profile: Path, *, javascript: bool = True) -> Iterator[Browser]:
    """A browser that knows no cookies yet; `profile` is an empty directory."""
    options = ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for switch in (*SWITCHES, f"--user-data-dir={profile}"):
        options.add_argument(switch)
    if not javascript:
        block = {"profile.managed_default_content_settings.javascript": 2}
        options.add_experimental_option("prefs", block)
    driver = Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_page_load_timeout(PAGE_TIMEOUT_S)
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    """What a person does with a page, and sees of it."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def forget(self) -> None:
        """Know nothing of what was before: no cookie of any site, and no complaint."""
        self.driver.get("about:blank")
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        self.complaints()

    def open(self, url: str) -> None:
        self.driver.get(url)

    def click(self, text: str) -> None:
        """The button or the link with this text."""
        path = f"//button[normalize-space()='{text}'] | //a[normalize-space()='{text}']"
        self.driver.find_element("xpath", path).click()

    def choose(self, label: str, value: str) -> None:
        """A value in the list that has this label."""
        path = f"//select[@id=//label[normalize-space()='{label}']/@for]/option[normalize-space()='{value}']"
        self.driver.find_element("xpath", path).click()

    def text(self, css: str) -> str:
        """The text of the first such element; empty where there is none, or where it has just been replaced."""
        return next(iter(self.texts(css)), "")

    def texts(self, css: str) -> list[str]:
        # One script, so that no element can become stale between being found and being read.
        script = "return [...document.querySelectorAll(arguments[0])].map(each => each.innerText.trim())"
        found: list[str] = self.driver.execute_script(script, css)
        return found

    def wait_for_text(self, css: str, *texts: str) -> str:
        def seen() -> str | None:
            text = self.text(css)
            return text if text in texts else None

        text = wait_until(seen, PAGE_TIMEOUT_S, f"{css} to be {' or '.join(texts)}")
        assert text is not None
        return text

    def complaints(self) -> list[str]:
        """What the console says that is more than a remark."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]
