"""Reports of comparisons over HTTP, in every state that one may be in."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
import yaml

from ridgeline.search.comparison import parse_comparison
from ridgeline.search.measures import WeightHistogram
from ridgeline.service.comparison_resources import Comparison
from ridgeline.service.comparisons import advance_all
from ridgeline.service.noting import bring_up_to_date
from ridgeline.service.store.session import Store
from tests.api.calling import ok, problem
from tests.measures import RELU
from tests.reports.reading import SVG, check, section, words
from tests.service.factory import FakeWorker, ended, value_of
from tests.service.test_comparisons import SPEC, train

C = "/v1/comparisons/c"


def html_of(client: httpx.Client) -> str:
    answer = client.get(f"{C}/report")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


def post(client: httpx.Client, **changes: Any) -> None:
    ok(client.post("/v1/comparisons", json={**SPEC, **changes}), 201)


def train_all(store: Store) -> None:
    for _ in range(2):
        train(store)
        advance_all(store)


def test_a_comparison_that_has_not_begun(client: httpx.Client) -> None:
    post(client)
    root = check(html_of(client))
    assert "The comparison is QUEUED" in words(root)
    result = section(root, "result")
    assert "No winner has been trained again yet" in result
    assert "none has no result" in result
    assert list(root.iter(f"{SVG}svg")) == []
    problem(client.get("/v1/comparisons/nobody/report"), 404)


def test_what_the_report_tells_once_all_is_done(client: httpx.Client, store: Store) -> None:
    arms = {"none": {}, "l2": {}, "wide": {"task": {"hidden": [512]}}}
    post(client, arms=arms)
    train_all(store)
    found = Comparison.model_validate(ok(client.get(C)))
    assert found.result is not None
    root = check(html_of(client))
    assert "The comparison is COMPLETED: 3 arms, 3 of them with a result." in words(root)
    result = section(root, "result")
    for difference in found.result.differences:
        assert difference.sentence in result
    for arm in found.result.arms:
        assert f"{arm.in_search:.4g}" in result
        assert f"{arm.mean:.4g}" in result
    assert "The mean over fresh seeds is best for l2, 0.61." in result
    assert "none − l2 -0.1 (-0.1 to -0.1)" in result
    told = section(root, "arms")
    assert "none nothing" in told
    assert "l2 l2 1e-06 to 0.01, log" in told
    assert "wide hidden [512]" in told
    asked = section(root, "asked")
    assert "learning_rate 0.0001 to 0.1, log" in asked
    assert "fresh seeds 3" in asked
    markdown = client.get(f"{C}/report", params={"format": "md"}).text
    (code,) = re.findall(r"c\.yaml:\n\n```\n(.*?)```", markdown, re.DOTALL)
    assert parse_comparison(yaml.safe_load(code)) == parse_comparison({**SPEC, "arms": arms})


def test_curves_of_fresh_seeds_with_their_band(client: httpx.Client, store: Store) -> None:
    post(client)
    for _ in range(2):
        worker = FakeWorker(store, num_slots=20)
        worker.sync()
        while worker.held:
            orders = list(worker.held.values())
            reports = [
                {
                    "run": order.run,
                    "attempt": order.attempt,
                    "epoch": epoch,
                    "metrics": {
                        "train_accuracy": epoch / 4,
                        "validation_accuracy": epoch / 5 + order.replicate / 100,
                    },
                }
                for order in orders
                for epoch in (1, 2, 3)
            ]
            metrics = {"test_accuracy": 0.5}
            ends = [
                ended(order, metrics={**metrics, "validation_accuracy": value_of(order)})
                for order in orders
            ]
            worker.sync(reports=reports, ended=ends)
        with store.transaction() as tx:
            tx.workers.update(worker.id, state="GONE")
        advance_all(store)
    root = check(html_of(client))
    curves = section(root, "curves")
    for arm in ("none", "l2"):
        told = f"{arm}, mean over 3 runs: train_accuracy is 0.25 at epoch 1 and 0.75 at epoch 3"
        assert told in curves
        assert "validation_accuracy is 0.21 at epoch 1 and 0.61 at epoch 3" in curves
    assert "lowest to highest run" in curves
    assert "By these data no arm is better than another." in section(root, "result")


def test_it_says_which_rows_winners_were_trained_on(client: httpx.Client, store: Store) -> None:
    post(client, train_on="train+validation")
    train_all(store)
    root = check(html_of(client))
    result = section(root, "result")
    assert "trained again with fresh seeds, on training and validation rows" in result
    assert "validation_accuracy, fresh seeds" not in result
    assert "on training and validation rows, for as many epochs" in section(root, "asked")
    url = "/v1/studies/c-fresh.l2/report"
    study = check(client.get(url).text)
    result = section(study, "result")
    assert "Trial 0 is complete: test_accuracy is 0.61, as means over 3 runs." in result
    assert "validation_accuracy" not in result
    assert "history" not in client.get(url, params={"format": "md"}).text.lower()
    told = "metrics of validation are of rows that were trained on"
    assert told in section(study, "asked")


def test_scores_of_every_size(client: httpx.Client, store: Store) -> None:
    scores = (1.7e308, -1.7e308, 5e-324)
    loss = {"metric": "validation_loss", "direction": "minimize"}
    post(client, base={**SPEC["base"], "objective": loss})
    for _ in range(2):
        worker = FakeWorker(store, num_slots=20)
        worker.sync()
        while worker.held:
            its = [(order, scores[order.replicate]) for order in worker.held.values()]
            worker.sync(
                ended=[
                    ended(
                        order, value=score, metrics={"validation_loss": score, "test_loss": -score}
                    )
                    for order, score in its
                ]
            )
        with store.transaction() as tx:
            tx.workers.update(worker.id, state="GONE")
        advance_all(store)
    found = Comparison.model_validate(ok(client.get(C)))
    assert found.result is not None
    assert [arm.interval is not None for arm in found.result.arms] == [True, True]
    root = check(html_of(client))
    for picture in root.iter(f"{SVG}svg"):
        drawn = " ".join(" ".join(element.attrib.values()) for element in picture.iter())
        assert not {"nan", "inf"} & set(re.findall(r"[a-z]+", drawn))
    check(client.get("/v1/studies/c-fresh.l2/report").text)
    bring_up_to_date(store)


def test_it_shows_how_large_the_weights_are(client: httpx.Client, store: Store) -> None:
    post(client)
    dense = RELU.model_copy(
        update={"weight_histogram": WeightHistogram(num_zero=0, counts=(*[0] * 17, 128, *[0] * 8))}
    )
    train(store)
    advance_all(store)
    assert "weights are" not in section(check(html_of(client)), "result")
    worker = FakeWorker(store, num_slots=20)
    worker.sync()
    ends = [
        ended(order, measures=RELU if ".l2" in order.study else dense)
        for order in worker.held.values()
    ]
    worker.sync(ended=ends)
    result = Comparison.model_validate(ok(client.get(C))).result
    assert result is not None
    counted = [arm.weight_histogram for arm in result.arms]
    assert [one and one.num_weights for one in counted] == [3 * 128] * 2
    root = check(html_of(client))
    (picture,) = (
        one for one in root.iter(f"{SVG}svg") if "How large the weights are" in words(one)
    )
    told = "none: 0.0 % are 0, half of all are at or below 0.088"
    assert told in words(picture)
    assert "l2: 12.5 % are 0, half of all are at or below 0.16" in words(picture)
    bars = [one for one in picture.iter(f"{SVG}rect") if one.get("class") == "bar"]
    assert len(bars) == 6, "a bin of the one; four, and what is 0, of the other"
    assert max(float(one.attrib["height"]) for one in bars) == 52
    assert all(float(one.attrib["x"]) + float(one.attrib["width"]) <= 460 for one in bars)
    markdown = client.get(f"{C}/report", params={"format": "md"}).text
    assert "| arm | 0 | 10 % | 25 % | 50 % | 75 % | 90 % |" in markdown
    assert r"| l2 | 12.5 % | 0 | 2.4e-06 | 0.16 | 0.29 | 0.4 |" in markdown


@pytest.mark.parametrize("num_arms", [32])
def test_of_many_arms_it_shows_the_pairs_with_the_best(
    client: httpx.Client, store: Store, num_arms: int
) -> None:
    base = {**SPEC["base"], "budget": {"trials": 1, "epochs": 1}}
    wide = {f"h{n}": {"task": {"hidden": [n + 1]}} for n in range(num_arms - 1)}
    post(client, base=base, arms={**wide, "l2": {}})
    for _ in range(8):
        train(store)
        advance_all(store)
    result = section(check(html_of(client)), "result")
    assert "466 more pairs are in the service alone." in result
    assert "Of 496 pairs those with l2 are shown." in result
