"""The dashboard in a real browser, through the api, as a person sees it."""

from __future__ import annotations

from pathlib import Path

import httpx
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from ridgeline.service import tokens
from ridgeline.service.api.app import create_app
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store
from tests.api.browser import PATIENCE_SECONDS, errors, log_in, needs_browser, shown
from tests.api.calling import EXTERNAL, ok, sqlite_only
from tests.api.serving import dashboard_process, serving, through, wait_until_listening
from tests.service.test_comparisons import SPEC as COMPARISON

pytestmark = needs_browser

CURVES = "user-defined-plot:learning-curves-1"
"""The id that the dashboard gives a figure of ours."""


def test_a_person_sees_the_study_and_its_trials(
    client: httpx.Client,
    store: Store,
    settings: Settings,
    migrated_url: str,
    browser: webdriver.Chrome,
    socket_path: Path,
) -> None:
    objective = {"metric": "validation_loss", "direction": "minimize"}
    study = {"name": "seen-by-a-person", "objective": objective, "budget": {"trials": 3}}
    ok(client.post("/v1/studies", json={**EXTERNAL, **study}), 201)
    path = "/v1/studies/seen-by-a-person/trials"
    for trial in ok(client.post(f"{path}:suggest", json={"count": 3}))["trials"]:
        value = 0.125 * (trial["number"] + 1)
        for epoch in (1, 2):
            metrics = {"validation_loss": value + 2 - epoch, "train_loss": value}
            report = {"attempt": 1, "epoch": epoch, "metrics": metrics}
            ok(client.post(f"{path}/{trial['number']}:report", json=report))
        end = {"attempt": 1, "value": value}
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
            errors(browser)

            browser.get(f"{url}/dashboard/studies/{study['study_id']}")
            shown(browser, "seen-by-a-person", "History")
            WebDriverWait(browser, PATIENCE_SECONDS).until(
                lambda its: its.find_elements(By.CSS_SELECTOR, f"[id='{CURVES}'] .legendtext")
            )
            plot = browser.find_element(By.ID, CURVES)
            title = [one.text for one in plot.find_elements(By.CSS_SELECTOR, ".gtitle tspan")]
            assert title == ["validation_loss by epoch", "the best 3 trials; training is dashed"]
            names = [one.text for one in plot.find_elements(By.CLASS_NAME, "legendtext")]
            assert names == [
                f"trial {number}, {side}"
                for number in range(3)
                for side in ("validation", "training")
            ]
            assert len(plot.find_elements(By.CSS_SELECTOR, ".scatterlayer .js-line")) == 6

            browser.get(f"{url}/dashboard/studies/{study['study_id']}/note")
            text = shown(browser, "Minimize validation_loss of external.", "state: COMPLETED")
            assert "progress: 3 of 3 trials have ended (3 complete)" in text
            assert "best: trial 0 with 0.125: " in text
            assert errors(browser) == []


@sqlite_only
def test_the_note_of_a_comparisons_study_has_a_table_of_its_arms(
    client: httpx.Client,
    store: Store,
    settings: Settings,
    migrated_url: str,
    browser: webdriver.Chrome,
    socket_path: Path,
) -> None:
    ok(client.post("/v1/comparisons", json=COMPARISON), 201)
    study_id = ok(client.get("/v1/studies/c-search.l2"))["optuna_study_id"]
    with dashboard_process(migrated_url, socket_path) as process:
        wait_until_listening(process)
        app = create_app(settings.model_copy(update={"dashboard_socket": socket_path}), store)
        with serving(app) as url:

            def has_arms(browser: webdriver.Chrome) -> bool:
                browser.get(f"{url}/dashboard/studies/{study_id}/note")
                return "A study of the comparison c, which is QUEUED." in shown(browser, "Maximize")

            WebDriverWait(browser, PATIENCE_SECONDS).until(has_arms)  # by the api's maintenance
            tables = browser.find_elements(By.TAG_NAME, "table")
            (arms,) = (one.text for one in tables if one.text.startswith("arm "))
            assert arms.splitlines()[0].endswith("test_accuracy, fresh seeds 95 % interval")
            assert arms.splitlines()[1:] == ["none QUEUED", "l2 QUEUED"]
            assert errors(browser) == []


@sqlite_only
def test_it_offers_nothing_that_it_would_refuse(
    client: httpx.Client,
    store: Store,
    settings: Settings,
    migrated_url: str,
    browser: webdriver.Chrome,
    socket_path: Path,
) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    ok(client.post("/v1/studies/x/trials:suggest"))
    study_id = ok(client.get("/v1/studies/x"))["optuna_study_id"]
    with dashboard_process(migrated_url, socket_path) as process:
        wait_until_listening(process)
        app = create_app(settings.model_copy(update={"dashboard_socket": socket_path}), store)
        with serving(app) as url:
            study = f"{url}/dashboard/studies/{study_id}"
            browser.get(f"{url}/status")
            shown(browser, "x RUNNING")
            browser.find_element(By.LINK_TEXT, "x").click()
            shown(browser, "x (id=", "History")
            assert browser.current_url == study
            browser.find_element(By.LINK_TEXT, "Status").click()
            shown(browser, "Live.")

            offered = set()
            for page, text in (
                (f"{url}/dashboard", f"{study_id}. x"),
                (study, "History"),
                (f"{study}/trials", "Trial 0 (trial_id="),
                (f"{study}/note", "Minimize"),
            ):
                browser.get(page)
                shown(browser, text)
                for name, path in WRITERS.items():
                    found = browser.find_elements(By.XPATH, path)
                    assert not any(one.is_displayed() for one in found), (page, name)
                    offered |= {name} if found else set()
            assert offered == WRITERS.keys(), "the dashboard has changed: look for its buttons anew"
            browser.get(f"{url}/dashboard")
            shown(browser, f"{study_id}. x")
            buttons = [one.accessible_name for one in visible(browser, "button")]
            assert buttons == ["open drawer", "", "RELOAD"]  # the second one closes the drawer

            # Whoever presses them all the same is told why it is refused.
            browser.get(f"{study}/note")
            shown(browser, "Minimize")
            press(browser, WRITERS["edit a note"])
            browser.find_element(By.TAG_NAME, "textarea").send_keys("mine")
            browser.find_element(By.XPATH, "//button[contains(., 'Save')]").click()
            shown(browser, "Failed: the dashboard only reads; studies are changed at /status")
            delete = f"return fetch('/api/studies/{study_id}', {{method: 'DELETE'}})"
            told = browser.execute_script(f"{delete}.then((answer) => answer.json())")
            assert told["reason"].startswith("the dashboard only reads")


WRITERS = {
    "create": "//button[contains(., 'Create')]",
    "rename": "//button[@aria-label='rename study']",
    "delete": "//button[@aria-label='delete study']",
    "fail a trial": "//button[contains(., 'Fail Trial')]",
    "edit a note": "//div[contains(@class, 'MuiCardContent-root')]/button",
}
"""What the dashboard offers and cannot do, as XPath; each of them is on one of its pages."""


def visible(browser: webdriver.Chrome, tag: str) -> list[WebElement]:
    return [one for one in browser.find_elements(By.TAG_NAME, tag) if one.is_displayed()]


def press(browser: webdriver.Chrome, path: str) -> None:
    browser.execute_script("arguments[0].click()", browser.find_element(By.XPATH, path))
