"""A real browser that can reach this machine alone, for tests of pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
CHROMEDRIVER = shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
PATIENCE_SECONDS = 60.0
"""A bound on what may go wrong, not a measure."""

needs_browser = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or CHROMEDRIVER is None, reason="chromium or chromedriver is missing"
    ),
]


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """A headless Chromium; `errors` has what its console says."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, Service(str(CHROMEDRIVER)))
    try:
        yield browser
    finally:
        browser.quit()


def errors(browser: webdriver.Chrome) -> list[str]:
    """What the console has said since the last call: errors, and what a policy has refused."""
    entries = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in entries if entry["level"] != "INFO"]


def shown(browser: webdriver.Chrome, *texts: str) -> str:
    """The page's text, once it has all of `texts`."""

    def text_of(browser: webdriver.Chrome) -> str:
        text = browser.find_element(By.TAG_NAME, "body").text
        return text if all(part in text for part in texts) else ""

    wait = WebDriverWait(browser, PATIENCE_SECONDS, poll_frequency=0.1)
    return wait.until(text_of, f"the page never showed {texts}")


def log_in(browser: webdriver.Chrome, url: str, path: str, token: str) -> None:
    """Open a page as a person who was asked for a password: the browser keeps it from then on."""
    browser.get(url.replace("://", f"://me:{token}@") + path)
    browser.get(url + path)


def set_size(browser: webdriver.Chrome, width: int, height: int = 800) -> None:
    """Give the page the size of a screen, in CSS pixels; windows have a least width."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
