"""Reports of studies over HTTP: what they tell, in every state a study may be in."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
import yaml

from ridgeline.search.spec import parse_spec
from ridgeline.service.resources import Study
from tests.api.calling import EXTERNAL, SPEC, fields, ok, problem, sqlite_only
from tests.reports.reading import SVG, check, section, words

MARKUP = "</title></style><script>alert(1)</script>\"'&"
HEBREW = "שלום"


def html_of(client: httpx.Client, study: str = "x") -> str:
    answer = client.get(f"/v1/studies/{study}/report")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    return answer.text


def markdown_of(client: httpx.Client, study: str = "x") -> str:
    answer = client.get(f"/v1/studies/{study}/report", params={"format": "md"})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
    return answer.text


def post(client: httpx.Client, num_trials: int, **changes: Any) -> None:
    ok(
        client.post("/v1/studies", json={**EXTERNAL, "budget": {"trials": num_trials}, **changes}),
        201,
    )


def suggest(client: httpx.Client, count: int) -> list[dict[str, Any]]:
    given: list[dict[str, Any]] = ok(
        client.post("/v1/studies/x/trials:suggest", json={"count": count})
    )["trials"]
    return given


def end(client: httpx.Client, number: int, **parts: Any) -> None:
    ok(client.post(f"/v1/studies/x/trials/{number}:complete", json={"attempt": 1, **parts}))


def report_epochs(client: httpx.Client, number: int, *metrics: dict[str, float]) -> None:
    epochs = [{"epoch": epoch, "metrics": one} for epoch, one in enumerate(metrics, start=1)]
    trial = {"number": number, "attempt": 1, "epochs": epochs}
    (outcome,) = ok(client.post("/v1/studies/x/trials:report", json={"trials": [trial]}))["trials"]
    assert outcome["error"] is None


def test_what_a_report_tells(client: httpx.Client) -> None:
    post(client, 6)
    trials = suggest(client, 6)
    for number in range(3):
        falling = [{"train_error": 0.5 / e, "error": 1 / e, "valid_loss": 2 / e} for e in (1, 2, 4)]
        report_epochs(client, number, *falling)
        end(client, number, value=0.25 - number / 100, metrics={"test_error": 0.5})
    end(client, 3, state="PRUNED", value=3.0)
    end(client, 4, state="FAIL", reason="diverged", error="loss is\nnot finite")
    root = check(html_of(client))
    text = words(root)
    assert (
        "The study is RUNNING: 6 trials, of them 3 complete, 1 pruned, 1 failed, 1 running" in text
    )
    depth = trials[2]["config"]["depth"]
    result = section(root, "result")
    assert "Trial 2 is the best of 3 complete trials: its error is 0.23." in result
    assert "With the same weights test_error is 0.5." in result
    assert f"depth {depth} 1 to 9" in result
    assert "Minimize error of external." in section(root, "asked")
    history = section(root, "history")
    assert "error of 3 complete trials and 1 pruned one." in history
    assert "The best so far is 0.25 with trial 0 and 0.23 with trial 2." in history
    curves = section(root, "curves")
    assert "Trial 2: error is 1 at epoch 1 and 0.25 at epoch 3; train_error is 0.5 at" in curves
    assert "Thin lines are 2 other trials." in curves
    assert "error by depth" in section(root, "parameters")
    failures = section(root, "failures")
    assert "1 trial was pruned" in failures
    assert "diverged 1 4 loss is not finite" in failures
    assert "ridgeline run x.yaml --name x-again --follow" in section(root, "repeat")


def test_the_spec_in_a_report_can_be_posted(client: httpx.Client) -> None:
    task = {"name": "mlp", "dataset": "digits", "hidden": [16]}
    ok(client.post("/v1/studies", json={**SPEC, "task": task}), 201)
    spec = Study.model_validate(ok(client.get("/v1/studies/s"))).spec
    (code,) = re.findall(r"s\.yaml:\n\n```\n(.*?)```", markdown_of(client, "s"), re.DOTALL)
    assert parse_spec(yaml.safe_load(code)) == spec
    asked = section(check(html_of(client, "s")), "asked")
    assert "trials, all of them at once where there is room, 20 epochs a run" in asked


@pytest.mark.parametrize(
    ("max_parallel", "told"), [(3, "at most 3 at once"), (4, "all of them at once"), (None, "all")]
)
def test_a_bound_on_trials_at_once_is_told_where_it_binds(
    client: httpx.Client, max_parallel: int | None, told: str
) -> None:
    post(client, 4, budget={"trials": 4, "max_parallel": max_parallel})
    assert f"budget 4 trials, {told}" in section(check(html_of(client)), "asked")


def test_the_format_follows_the_query_or_else_the_accept_header(client: httpx.Client) -> None:
    post(client, 1)
    path = "/v1/studies/x/report"
    for accept, query, expected in (
        ("text/markdown", {}, "text/markdown"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", {}, "text/html"),
        ("*/*", {}, "text/html"),
        ("text/markdown, text/html", {}, "text/html"),
        ("text/markdown", {"format": "html"}, "text/html"),
        ("text/html", {"format": "md"}, "text/markdown"),
    ):
        answer = client.get(path, params=query, headers={"Accept": accept})
        assert answer.headers["content-type"] == f"{expected}; charset=utf-8"
        assert answer.headers["vary"] == "Accept"
    assert "format" in fields(client.get(path, params={"format": "pdf"}))
    problem(client.get("/v1/studies/nobody/report"), 404)


def test_studies_with_nothing_to_show(client: httpx.Client) -> None:
    post(client, 2)
    root = check(html_of(client))
    assert "No trial is complete, so there is no best one." in section(root, "result")
    assert "of them none begun" in words(root)
    assert list(root.iter(f"{SVG}svg")) == []
    suggest(client, 2)
    report_epochs(client, 0, {"error": 0.5})
    assert "Trial 0: error is 0.5 at epoch 1." in section(check(html_of(client)), "curves")
    for number in range(2):
        end(client, number, state="FAIL", reason="diverged")
    root = check(html_of(client))
    assert "The study is FAILED (every trial failed; 2 diverged)" in words(root)
    assert "diverged 2 0" in section(root, "failures")
    assert markdown_of(client).startswith("# x\n\nReport of a study. The study is FAILED")


def test_a_study_with_one_trial(client: httpx.Client) -> None:
    post(client, 1)
    suggest(client, 1)
    end(client, 0, value=-0.5)
    root = check(html_of(client))
    result = section(root, "result")
    assert "Trial 0 is the best of 1 complete trial: its error is -0.5." in result
    assert "It was chosen" not in result
    assert "The best so far is -0.5 with trial 0." in section(root, "history")


def test_texts_of_people_are_shown_as_they_are_and_become_no_markup(client: httpx.Client) -> None:
    metric = f"loss/{MARKUP}"
    values = [MARKUP, HEBREW, "a|b`c", "x\u202ey", "*bold* _it_ [a](b)"]
    space = {"kind": {"type": "values", "values": values}}
    objective = {"metric": metric, "direction": "maximize"}
    post(client, 30, space=space, objective=objective)
    for trial in suggest(client, 30):
        number = trial["number"]
        report_epochs(client, number, {metric: 0.5, f"train/{MARKUP}": 1.0, f"val/{MARKUP}": 2.0})
        if number % 3:
            end(client, number, value=number, metrics={f"test_{MARKUP}": 1.0})
        else:
            end(client, number, state="FAIL", reason="diverged", error=f"{MARKUP}\x1b[31m{HEBREW}")
    html = html_of(client)
    root = check(html)
    assert "<script" not in html
    assert f"Maximize {metric} of external." in words(root)
    assert f"{MARKUP} [31m\u2068{HEBREW}" not in words(root)  # the whole text is isolated
    assert f"\u2068{MARKUP} [31m{HEBREW}\u2069" in section(root, "failures")
    assert f"\u2068{HEBREW}\u2069" in words(root)
    assert "\u202e" not in html
    markdown = markdown_of(client)
    assert "\u202e" not in markdown
    outside = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)[<`]", outside)
    assert r"a\|b\`c" in outside
    assert r"\*bold\* \_it\_ \[a\](b)" in outside
    (code,) = re.findall(r"x\.yaml:\n\n(`+)\n(.*?)\n\1", markdown, re.DOTALL)
    assert yaml.safe_load(code[1])["space"]["kind"]["values"] == values


def test_numbers_of_every_size(client: httpx.Client) -> None:
    space = {
        "tiny": {"type": "float", "low": 1e-300, "high": 1e300, "log": True},
        "wide": {"type": "float", "low": -8e307, "high": 8e307},
        "narrow": {"type": "float", "low": 1.0, "high": 1.0000000000000002},
        "large": {"type": "int", "low": -(2**53), "high": 2**53},
        "flag": {"type": "values", "values": [True, False]},
    }
    post(client, 60, space=space)
    values = [1.7e308, -1.7e308, 5e-324, 0.0, -0.0, 1.0]
    for trial in suggest(client, 60):
        number = trial["number"]
        value = values[number % len(values)] if number % 2 else number / 7
        report_epochs(client, number, {"error": value}, {"train_error": value}, {"error": -value})
        end(client, number, value=value)
    root = check(html_of(client))
    assert "its error is -1.7e+308" in section(root, "result")
    for picture in root.iter(f"{SVG}svg"):
        drawn = " ".join(" ".join(element.attrib.values()) for element in picture.iter())
        assert "nan" not in drawn
        assert "inf" not in drawn
    assert "tiny" in markdown_of(client)


def test_a_space_of_many_parameters(client: httpx.Client) -> None:
    space = {f"p{n}": {"type": "float", "low": 0, "high": 1} for n in range(40)}
    post(client, 30, space=space)
    for trial in suggest(client, 30):
        end(client, trial["number"], value=trial["config"]["p7"])
    parameters = section(check(html_of(client)), "parameters")
    assert "Of 40 parameters 12 are drawn." in parameters
    assert "Of 40 parameters the 12 most important are shown." in parameters


@sqlite_only
@pytest.mark.slow
def test_ten_thousand_trials_make_a_small_report(client: httpx.Client) -> None:
    space = {
        "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "batch_size": {"type": "values", "values": [16, 32, 64]},
        "l2": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True, "zero": True},
    }
    post(client, 10_000, space=space)
    for _ in range(20):
        given = suggest(client, 500)
        ends = [
            {
                "number": trial["number"],
                "attempt": 1,
                "epochs": [{"epoch": e, "metrics": {"error": 1 / e}} for e in (1, 2)],
                "end": {"value": 1.0 + trial["config"]["learning_rate"]},
            }
            for trial in given
        ]
        ok(client.post("/v1/studies/x/trials:report", json={"trials": ends}))
    html = html_of(client)
    assert len(html) < 500_000
    root = check(html)
    assert "Of 10,000 complete trials 2,0" in section(root, "history")
    parameters = section(root, "parameters")
    assert "Of 10,000 complete trials 300 are drawn." in parameters
    assert "Of 10,000 complete trials 1,000 are drawn." in parameters
    assert "error by learning_rate and batch_size" in parameters
    assert "error by learning_rate and l2" in parameters
