"""Takes the pictures of pages in docs/ from a service that runs.

python -m tests.api.screenshot status URL docs/status.png
python -m tests.api.screenshot report URL/v1/studies/NAME/report docs/report.png
python -m tests.api.screenshot phone URL/v1/studies/NAME/report docs/report-phone.png
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from selenium import webdriver

from tests.api.browser import chromium, set_size, shown


def main(page: str, url: str, file: Path) -> None:
    with TemporaryDirectory() as profile, chromium(Path(profile)) as browser:
        browser.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
        PAGES[page](browser, url)
        browser.save_screenshot(str(file))


def status(browser: webdriver.Chrome, url: str) -> None:
    set_size(browser, 900)
    browser.get(f"{url}/status")
    shown(browser, "Live.", "RUNNING", "COMPLETED", "slots busy")
    set_size(browser, 900, browser.execute_script("return document.body.scrollHeight"))


def report(browser: webdriver.Chrome, url: str) -> None:
    set_size(browser, 1_000, 1_300)
    browser.get(f"{url}#curves")
    shown(browser, "Learning curves", "Importance of the parameters")


def phone(browser: webdriver.Chrome, url: str) -> None:
    set_size(browser, 390, 1_300)
    browser.get(f"{url}#parameters")
    shown(browser, "Configurations and their values")


PAGES = {"status": status, "report": report, "phone": phone}

if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
