"""/docs in a real browser that can reach this machine alone."""

from __future__ import annotations

import httpx
from fastapi import FastAPI
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.api.browser import PATIENCE_SECONDS, errors, needs_browser, shown
from tests.api.calling import ok, sqlite_only
from tests.api.serving import serving

pytestmark = [sqlite_only, *needs_browser]


def test_a_person_sees_the_operations_without_the_internet(
    app: FastAPI, client: httpx.Client, browser: webdriver.Chrome
) -> None:
    document = ok(client.get("/openapi.json"))
    with serving(app) as url:
        browser.get(f"{url}/docs")
        shown(browser, "Ridgeline", *(tag["name"] for tag in document["tags"]))
        listed = {
            (
                one.find_element(By.CLASS_NAME, "opblock-summary-method").text.lower(),
                one.find_element(By.CLASS_NAME, "opblock-summary-path").get_attribute("data-path"),
            )
            for one in browser.find_elements(By.CLASS_NAME, "opblock-summary")
        }
        assert listed == {
            (method, path)
            for path, operations in document["paths"].items()
            for method in operations
        }
        browser.implicitly_wait(PATIENCE_SECONDS)
        # It can be tried out there too, with all that a policy might refuse.
        browser.find_element(By.CSS_SELECTOR, "[data-path='/healthz']").click()
        for button in ("try-out__btn", "execute"):
            browser.find_element(By.CLASS_NAME, button).click()
        shown(browser, '"status": "ok"')
        assert errors(browser) == []
