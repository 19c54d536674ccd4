"""The dashboard in a real browser, through the api, as a person sees it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from service import tokens
from service.api.app import create_app
from service.settings import Settings
from service.store.session import Store
from tests.api.calling import EXTERNAL, ok
from tests.api.serving import dashboard_process, serving, through, wait_until_listening

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
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None or CHROMEDRIVER is None, reason="chromium or chromedriver is missing"
    ),
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options, Service(str(CHROMEDRIVER)))
    yield browser
    browser.quit()


def shown(browser: webdriver.Chrome, *texts: str) -> str:
    """The page's text, once it has all of `texts`."""

    def text_of(browser: webdriver.Chrome) -> str:
        text = browser.find_element(By.TAG_NAME, "body").text
        return text if all(part in text for part in texts) else ""

    return WebDriverWait(browser, 60).until(text_of, f"the page never showed {texts}")


def test_a_person_sees_the_study_and_its_trials(
    client: httpx.Client,
    store: Store,
    settings: Settings,
    migrated_url: str,
    browser: webdriver.Chrome,
    socket_path: Path,
) -> None:
    ok(client.post("/v1/studies", json={**EXTERNAL, "name": "seen-by-a-person"}), 201)
    path = "/v1/studies/seen-by-a-person/trials"
    for trial in ok(client.post(f"{path}:suggest", json={"count": 3}))["trials"]:
        end = {"attempt": 1, "value": 0.125 * (trial["number"] + 1)}
        ok(client.post(f"{path}/{trial['number']}:complete", json=end))
    with store.transaction() as tx:
        _, token = tokens.create(tx, "browser", ["read"])
    with dashboard_process(migrated_url, socket_path) as process:
        wait_until_listening(process)
        app = create_app(settings.model_copy(update={"dashboard_socket": socket_path}), store)
        with serving(app) as url, through(socket_path) as dashboard:
            browser.get(f"{url}/dashboard")
            assert "seen-by-a-person" not in browser.page_source
            # The browser keeps what it was asked for and sends it with every later request.
            browser.get(url.replace("://", f"://me:{token}@") + "/dashboard")
            browser.get(f"{url}/dashboard")
            shown(browser, "seen-by-a-person")
            (study,) = ok(dashboard.get("/api/studies"))["study_summaries"]
            browser.get(f"{url}/dashboard/studies/{study['study_id']}/trials")
            text = shown(browser, "seen-by-a-person", "Trial 0", "Trial 1", "Trial 2", "Complete")
            assert "0.125" in text
