"""A report as a file in a real browser without a network: at a desk, on a phone, printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium import webdriver

from tests.api.browser import errors, needs_browser, set_size
from tests.api.calling import EXTERNAL, ok, sqlite_only

pytestmark = [*needs_browser, sqlite_only]

TEXT_CONTRAST, MARK_CONTRAST = 4.5, 3.0
"""What WCAG 2.2 asks of letters (1.4.3) and of what a figure is read by (1.4.11)."""

MARKS = (
    ".trial", ".pruned", ".best-so-far", ".train", ".validation", ".best-line", ".axis",
    ".f1", ".f2", ".f3", ".f4", ".f5",
)  # fmt: skip

CONTRAST = """
function linear(part) {
  part /= 255;
  return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
}
function parts(color) { return color.match(/[\\d.]+/g).map(Number); }
function luminance([r, g, b]) {
  return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
}
const page = parts(getComputedStyle(document.body).backgroundColor);
function contrast(color, opacity) {
  const seen = parts(color).slice(0, 3).map((part, i) => opacity * part + (1 - opacity) * page[i]);
  const [low, high] = [luminance(seen), luminance(page)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}
"""
WORST_TEXT = f"""
{CONTRAST}
const found = [];
for (const element of document.querySelectorAll("body *")) {{
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (own && !["title", "desc"].includes(element.tagName)) {{
    const style = getComputedStyle(element);
    found.push(contrast(element.tagName === "text" ? style.fill : style.color, 1));
  }}
}}
return Math.min(...found);
"""
WORST_MARK = f"""
{CONTRAST}
return Object.fromEntries(arguments[0].map((look) => [look, Math.min(
  ...[...document.querySelectorAll(`${{look}}:not(.rim)`)].map((mark) => {{
    const style = getComputedStyle(mark);
    return contrast(style.stroke, Number(style.opacity));
  }}))]));
"""
OUTSIDE = "return performance.getEntriesByType('resource').map((one) => one.name)"


@pytest.fixture
def url(client: httpx.Client, tmp_path: Path) -> str:
    """The report of a study with all figures, as a file."""
    space = {
        "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "batch_size": {"type": "values", "values": [16, 32, 64]},
        "l2": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True, "zero": True},
        "a_parameter_with_a_name_that_is_longer_than_any_phone_is_wide": {
            "type": "values",
            "values": ["x" * 200, "y"],
        },
    }
    ok(client.post("/v1/studies", json={**EXTERNAL, "space": space, "budget": {"trials": 45}}), 201)
    given = ok(client.post("/v1/studies/x/trials:suggest", json={"count": 44}))["trials"]
    trials = []
    for trial in given:
        number, rate = trial["number"], trial["config"]["learning_rate"]
        end: dict[str, Any] = {"value": 1 + rate, "metrics": {"test_error": 1.5}}
        if number % 5 == 4:
            end = {"state": "PRUNED", "value": 1.1}
        elif number % 11 == 10:
            end = {"state": "FAIL", "reason": "diverged", "error": "z" * 500}
        epochs = [
            {"epoch": e, "metrics": {"train_error": 1 / e, "validation_error": 1 / e + rate}}
            for e in (1, 2, 3)
        ]
        trials.append({"number": number, "attempt": 1, "epochs": epochs, "end": end})
    ok(client.post("/v1/studies/x/trials:report", json={"trials": trials}))
    file = tmp_path / "report.html"
    file.write_text(client.get("/v1/studies/x/report").text, encoding="utf-8")
    return file.as_uri()


def media(browser: webdriver.Chrome, kind: str, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": kind, "features": features})


def test_it_is_read_anywhere(url: str, browser: webdriver.Chrome) -> None:
    for width in (1280, 390, 320):
        set_size(browser, width)
        browser.get(url)
        needed = browser.execute_script("return document.documentElement.scrollWidth")
        assert needed <= width, f"a screen of {width} px scrolls sideways"
        browser.execute_script(
            "for (const one of document.querySelectorAll('details')) one.open = 1"
        )
        needed = browser.execute_script("return document.documentElement.scrollWidth")
        assert needed <= width, f"tables make a screen of {width} px scroll sideways"
        assert browser.execute_script(OUTSIDE) == []
        smallest = browser.execute_script(
            "return Math.min(...[...document.querySelectorAll('svg')].map("
            "(one) => 13 * one.getBoundingClientRect().width / one.viewBox.baseVal.width))"
        )
        assert smallest >= (10 if width == 390 else 8), "letters of figures are too small"
    assert errors(browser) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_and_marks_stand_out(url: str, browser: webdriver.Chrome, scheme: str) -> None:
    media(browser, "screen", scheme)
    browser.get(url)
    assert browser.execute_script(WORST_TEXT) >= TEXT_CONTRAST
    worst = browser.execute_script(WORST_MARK, MARKS)
    assert {look: ratio for look, ratio in worst.items() if ratio is None} == {}, "is not drawn"
    assert {look: ratio for look, ratio in worst.items() if ratio < MARK_CONTRAST} == {}


def test_it_prints_dark_on_white(url: str, browser: webdriver.Chrome) -> None:
    media(browser, "print", "dark")
    browser.get(url)
    style = "getComputedStyle(document.body)"
    assert browser.execute_script(f"return {style}.backgroundColor") == "rgb(255, 255, 255)"
    assert browser.execute_script(WORST_TEXT) >= TEXT_CONTRAST
    assert not browser.execute_script("return document.querySelector('nav').checkVisibility()")
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
    assert len(printed["data"]) > 10_000


def test_nothing_in_it_can_run(url: str, browser: webdriver.Chrome) -> None:
    """Were a text to become markup after all, its own policy would stop it."""
    browser.get(url)
    browser.execute_script(
        "const script = document.createElement('script');"
        "script.textContent = 'window.ran = true';"
        "document.body.append(script)"
    )
    assert not browser.execute_script("return window.ran === true")
    assert any("Content Security Policy" in said for said in errors(browser))
