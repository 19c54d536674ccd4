"""`/status` in a real browser that reaches no other machine, as a person sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from selenium import webdriver
from selenium.common.exceptions import (
    ElementNotInteractableException,
    StaleElementReferenceException,
)
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from ridgeline.service import studies, tokens
from ridgeline.service.api import examples
from ridgeline.service.errors import Unavailable
from ridgeline.service.store.session import Store
from tests.api.browser import (
    PATIENCE_SECONDS,
    errors,
    log_in,
    needs_browser,
    set_size,
    shown,
)
from tests.api.calling import EXTERNAL, SPEC, ok, sqlite_only
from tests.api.serving import serving

pytestmark = needs_browser

MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    with serving(app) as url:
        yield url


def port(url: str) -> int:
    return httpx.URL(url).port or 0


def suggest(client: httpx.Client, study: str, count: int) -> None:
    ok(client.post(f"/v1/studies/{study}/trials:suggest", json={"count": count}))


def complete(client: httpx.Client, study: str, number: int, value: float) -> None:
    end = {"attempt": 1, "value": value}
    ok(client.post(f"/v1/studies/{study}/trials/{number}:complete", json=end))


def card(browser: webdriver.Chrome, name: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, f'.card[data-key="{name}"]')


def button(browser: webdriver.Chrome, verb: str, study: str) -> WebElement:
    path = f'.card[data-key="{study}"] button[data-verb="{verb}"]'
    return browser.find_element(By.CSS_SELECTOR, path)


def press(browser: webdriver.Chrome, verb: str, study: str, key: str | None = None) -> None:
    """Press a button, again where its card goes to another list in that moment."""

    def pressed(browser: webdriver.Chrome) -> bool:
        one = button(browser, verb, study)
        if key is None:
            one.click()
        else:
            one.send_keys(key)
        return True

    gone = [StaleElementReferenceException, ElementNotInteractableException]
    wait = WebDriverWait(browser, PATIENCE_SECONDS, 0.1, ignored_exceptions=gone)
    wait.until(pressed, f"{study} cannot be told to {verb}")


def test_a_person_watches_studies_and_stops_them(
    client: httpx.Client, url: str, browser: webdriver.Chrome
) -> None:
    objective = {"metric": f"loss/{MARKUP}", "direction": "minimize"}
    for name in ("running", "paused", "ended"):
        ok(client.post("/v1/studies", json={**EXTERNAL, "name": name, "objective": objective}), 201)
    ok(client.post("/v1/studies", json={**SPEC, "name": "queued"}), 201)
    ok(client.post("/v1/studies/paused:pause"))
    suggest(client, "ended", 4)
    for number in range(4):
        complete(client, "ended", number, 0.25 + number)
    suggest(client, "running", 3)
    device = {"name": "cpu:0", "kind": "cpu", "description": MARKUP, "num_slots": 4}
    registration = {**examples.REGISTRATION, "name": MARKUP, "devices": [device], "tasks": []}
    ok(client.post("/v1/workers", json=registration), 201)

    browser.get(url)
    text = shown(browser, "Live.", "0 of 4 trials done, 3 running", "0 of 4 slots busy, 4 idle")
    assert browser.current_url == f"{url}/status"
    assert "no connected worker has the task mlp" in card(browser, "queued").text
    assert "paused; resume it to go on" in card(browser, "paused").text
    assert f"best loss/{MARKUP} 0.25, trial 0: depth=" in card(browser, "ended").text
    assert f"{MARKUP} live" in text
    assert f"cpu:0 ({MARKUP}): 0 of 4" in text
    assert browser.find_elements(By.TAG_NAME, "img") == []

    for width in (1280, 360):
        set_size(browser, width)
        needed = browser.execute_script("return document.documentElement.scrollWidth")
        assert needed <= width, f"a screen of {width} px scrolls sideways"

    browser.execute_script("window.wasNotReloaded = true")
    complete(client, "running", 0, 0.5)
    shown(browser, "1 of 4 trials done, 2 running")

    press(browser, "pause", "running")
    shown(browser, "running PAUSED")
    press(browser, "resume", "running", Keys.ENTER)
    shown(browser, "running RUNNING")
    # In place of the button that went, wherever the card is by now.
    focused = browser.execute_script("return document.activeElement.getAttribute('aria-label')")
    assert focused == "Pause running"
    press(browser, "stop", "running")
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not ok(client.get("/v1/studies/running"))["stopping"]
    press(browser, "stop", "running")
    browser.find_element(By.ID, "confirm-yes").click()
    shown(browser, "running RUNNING, stopping")
    assert ok(client.get("/v1/studies/running"))["stopping"]
    press(browser, "cancel", "queued")
    browser.find_element(By.ID, "confirm-yes").click()
    shown(browser, "queued CANCELLED")
    assert ok(client.get("/v1/studies/queued"))["state"] == "CANCELLED"
    assert browser.execute_script("return window.wasNotReloaded")
    card(browser, "ended").find_element(By.LINK_TEXT, "Report").click()
    shown(browser, "The study is COMPLETED: 4 trials, of them 4 complete.")
    assert errors(browser) == []


@sqlite_only
def test_a_token_that_may_only_read_stops_nothing(
    client: httpx.Client, store: Store, url: str, browser: webdriver.Chrome
) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    with store.transaction() as tx:
        _, reader = tokens.create(tx, "reader", ["read"])
        info, writer = tokens.create(tx, "writer", ["write"])
    browser.get(f"{url}/status")
    assert "Ridgeline: status" not in browser.page_source
    log_in(browser, url, "/status", reader)
    shown(browser, "x QUEUED", "Your token may only read.")
    assert not button(browser, "stop", "x").is_enabled()
    stop: Any = "return fetch('/v1/studies/x:stop', {method: 'POST'}).then((one) => one.status)"
    assert browser.execute_script(stop) == 403
    # Its button too, where somebody makes it work.
    browser.execute_script("arguments[0].disabled = false", button(browser, "pause", "x"))
    browser.execute_script("arguments[0].click()", button(browser, "pause", "x"))
    shown(browser, "It could not be done: this token lacks the scope write")

    browser.execute_cdp_cmd("Network.clearBrowserCache", {})
    log_in(browser, url, "/status", writer)
    shown(browser, "x QUEUED")
    assert "may only read" not in browser.find_element(By.TAG_NAME, "body").text
    press(browser, "pause", "x")
    shown(browser, "x PAUSED")

    with store.transaction() as tx:
        tokens.revoke(tx, info.id)
    shown(browser, "this token was revoked. Reload the page to give a token.")


@sqlite_only
def test_it_says_that_the_service_is_away_and_recovers(
    client: httpx.Client,
    app: FastAPI,
    browser: webdriver.Chrome,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(app) as url:
        browser.get(f"{url}/status")
        shown(browser, "Live.", "No study is running.", "No worker has called in the last hour")
    shown(browser, "Not up to date: the service does not answer. Trying again …")

    def fail(*_: Any, **__: Any) -> Any:
        raise Unavailable("the database restarts")

    with monkeypatch.context() as patch, serving(app, port(url)):
        patch.setattr(studies, "list_page", fail)
        shown(browser, "Not up to date: the database restarts. Trying again …")
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    with serving(app, port(url)):
        shown(browser, "Live.", "x QUEUED")


@sqlite_only
def test_of_many_studies_it_shows_some(
    client: httpx.Client, url: str, browser: webdriver.Chrome
) -> None:
    for number in range(23):
        ok(client.post("/v1/studies", json={**EXTERNAL, "name": f"x{number}"}), 201)
    browser.get(f"{url}/status")
    shown(browser, "x22 QUEUED", "x3 QUEUED", "… and 3 more")
    assert "x2 QUEUED" not in browser.find_element(By.TAG_NAME, "body").text
