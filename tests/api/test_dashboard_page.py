"""The dashboard in a real browser, through the api, as a person sees it."""

from __future__ import annotations

from pathlib import Path

import httpx
from selenium import webdriver

from service import tokens
from service.api.app import create_app
from service.settings import Settings
from service.store.session import Store
from tests.api.browser import log_in, needs_browser, shown
from tests.api.calling import EXTERNAL, ok
from tests.api.serving import dashboard_process, serving, through, wait_until_listening

pytestmark = needs_browser


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
            log_in(browser, url, "/dashboard", token)
            shown(browser, "seen-by-a-person")
            (study,) = ok(dashboard.get("/api/studies"))["study_summaries"]
            browser.get(f"{url}/dashboard/studies/{study['study_id']}/trials")
            text = shown(browser, "seen-by-a-person", "Trial 0", "Trial 1", "Trial 2", "Complete")
            assert "0.125" in text
