"""The contract of /v1/comparisons, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from ridgeline.service.api.app import create_app
from ridgeline.service.comparison_resources import Comparison
from ridgeline.service.comparisons import advance_all
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store
from tests.api.calling import SPEC as STUDY
from tests.api.calling import fields, ok, problem, sqlite_only
from tests.api.conftest import ClientOf
from tests.service.test_comparisons import SPEC, train

C = "/v1/comparisons/c"


def post(client: httpx.Client, **changes: Any) -> Any:
    return ok(client.post("/v1/comparisons", json={**SPEC, **changes}), 201)


def test_post_and_get(client: httpx.Client) -> None:
    created = post(client)
    assert created["state"] == "QUEUED"
    assert created["spec"] == {**SPEC, "train_on": "train"}
    assert [arm["search"]["name"] for arm in created["arms"]] == ["c-search.none", "c-search.l2"]
    found = ok(client.get(C))
    assert {**found, "arms": None} == {**created, "arms": None}
    assert ok(client.get("/v1/studies/c-search.l2"))["state"] == "QUEUED"
    listed = ok(client.get("/v1/comparisons"))
    assert listed["total_size"] == 1
    shown = {name: value for name, value in found.items() if name not in ("arms", "result")}
    assert listed["comparisons"] == [shown]


def test_the_result_once_all_is_done(client: httpx.Client, store: Store) -> None:
    post(client)
    for _ in range(2):
        train(store)
        advance_all(store)
    found = Comparison.model_validate(ok(client.get(C)))
    assert found.state == "COMPLETED"
    assert found.result is not None
    assert (found.result.metric, found.result.test_metric) == (
        "validation_accuracy",
        "test_accuracy",
    )
    assert found.result.differences[0].interval is not None
    etag = client.get(C).headers["etag"]
    assert client.get(C, headers={"If-None-Match": etag}).status_code == 304


def test_a_list_of_arms_names_ready_made_ones(client: httpx.Client) -> None:
    assert [*post(client, arms=["none", "dropout"])["spec"]["arms"]] == ["none", "dropout"]


def test_a_name_is_given_once(client: httpx.Client) -> None:
    with ThreadPoolExecutor(4) as pool:
        calls = pool.map(lambda _: client.post("/v1/comparisons", json=SPEC), range(4))
        assert sorted(answer.status_code for answer in calls) == [201] + [409] * 3


def test_a_repeated_post_has_its_effect_once(client: httpx.Client) -> None:
    key = {"Idempotency-Key": "k"}
    first = ok(client.post("/v1/comparisons", json=SPEC, headers=key), 201)
    again = client.post("/v1/comparisons", json=SPEC, headers=key)
    assert ok(again, 201) == first
    assert again.headers["Idempotency-Replayed"] == "true"
    ok(client.post(f"{C}:cancel"))
    ok(client.delete(C, headers={"If-Match": "*"}))
    body = problem(client.post("/v1/comparisons", json=SPEC, headers=key), 409)
    assert "was deleted since" in body["detail"]


def test_a_repeated_extension_has_its_effect_once(client: httpx.Client) -> None:
    post(client)
    for _ in range(2):
        key = {"Idempotency-Key": "k"}
        extended = ok(client.post(f"{C}:extend", json={"trials": 3}, headers=key))
        assert extended["spec"]["base"]["budget"]["trials"] == 5


@sqlite_only
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"base": {**SPEC["base"], "budget": {}}}, {"base.budget.trials"}),
        ({"base": {**SPEC["base"], "task": 3}}, {"base.task"}),
        ({"arms": ["none", "dropuot"]}, {"arms.dropuot"}),
        ({"arms": {"none": {}, "a": {"space": {"l2": {"type": "float"}}}}},
         {"arms.a.space.l2.low", "arms.a.space.l2.high"}),
        ({"arms": {"none": {}, "a": {"task": {"dataset": "wine"}}}}, {"arms.a.task.dataset"}),
        ({"arms": ["none"]}, {"arms"}),
        ({"replicates": 2}, {"replicates"}),
        ({"name": "../c"}, {"name"}),
        ({"colour": "red"}, {"colour"}),
        ({"base": {**SPEC["base"], "task": {"name": "mlp", "dataset": "gone"}}},
         {"base.task.dataset"}),
    ],
)  # fmt: skip
def test_problems_name_the_field(
    client: httpx.Client, changes: dict[str, Any], named: set[str]
) -> None:
    answer = client.post("/v1/comparisons", json={**SPEC, **changes})
    assert fields(answer).keys() == named
    assert ok(client.get("/v1/studies"))["studies"] == []


@sqlite_only
def test_what_is_no_object_is_refused(client: httpx.Client) -> None:
    assert fields(client.post("/v1/comparisons", json=[])).keys() == {""}
    post(client)
    assert fields(client.post(f"{C}/arms", json={"arms": []})).keys() == {"arms"}
    assert fields(client.post(f"{C}:extend", json={})).keys() == {"trials"}
    assert fields(client.post(f"{C}:pause", json={"now": True})).keys() == {"now"}


def test_verbs(client: httpx.Client) -> None:
    post(client)
    assert ok(client.post(f"{C}:pause"))["state"] == "PAUSED"
    assert ok(client.post(f"{C}:resume"))["state"] == "QUEUED"
    assert (
        ok(client.post(f"{C}:extend", json={"trials": 5}))["arms"][1]["search"]["num_trials"] == 7
    )
    added = ok(client.post(f"{C}/arms", json={"arms": ["dropout"]}), 201)
    assert added["arms"][2]["search"]["num_trials"] == 7
    problem(client.post(f"{C}/arms", json={"arms": ["dropout"]}), 409)
    problem(client.delete(C, headers={"If-Match": "*"}), 409)
    assert ok(client.post(f"{C}:cancel"))["state"] == "CANCELLED"
    problem(client.post(f"{C}:resume"), 409)
    problem(client.delete(C), 428)
    problem(client.delete(C, headers={"If-Match": '"another"'}), 412)
    etag = client.get(C).headers["etag"]
    assert ok(client.delete(C, headers={"If-Match": etag}))["state"] == "CANCELLED"
    problem(client.get(C), 404)
    assert ok(client.get("/v1/studies"))["studies"] == []


@sqlite_only
def test_what_does_not_exist(client: httpx.Client) -> None:
    for verb in (":pause", ":resume", ":cancel"):
        assert "nobody" in problem(client.post(f"/v1/comparisons/nobody{verb}"), 404)["detail"]
    problem(client.get("/v1/comparisons/nobody"), 404)
    problem(client.post("/v1/comparisons/nobody:extend", json={"trials": 1}), 404)
    problem(client.post("/v1/comparisons/nobody/arms", json={"arms": ["l2"]}), 404)
    problem(client.delete("/v1/comparisons/nobody", headers={"If-Match": "*"}), 404)


def test_pages(client: httpx.Client) -> None:
    for number in range(5):
        post(client, name=f"c{number}")
    names: list[str] = []
    token: str | None = None
    while True:
        params = {"page_size": "2"} | ({} if token is None else {"page_token": token})
        page = ok(client.get("/v1/comparisons", params=params))
        names += [one["name"] for one in page["comparisons"]]
        token = page["next_page_token"]
        if token is None:
            break
    assert names == [f"c{number}" for number in reversed(range(5))]


def test_a_part_of_a_comparison_is_not_deleted_alone(client: httpx.Client) -> None:
    post(client)
    ok(client.post("/v1/studies/c-search.l2:cancel"))
    answer = client.delete("/v1/studies/c-search.l2", headers={"If-Match": "*"})
    assert "part of the comparison c" in problem(answer, 409)["detail"]


@sqlite_only
def test_a_study_in_the_way_is_named(client: httpx.Client) -> None:
    ok(client.post("/v1/studies", json={**STUDY, "name": "c-search.none"}), 201)
    told = problem(client.post("/v1/comparisons", json=SPEC), 409)["detail"]
    assert told == (
        "there is another study named c-search.none already: give the comparison another name, or "
        "delete that study with `ridgeline delete c-search.none`"
    )


@sqlite_only
def test_no_more_studies_than_are_allowed(
    settings: Settings, store: Store, client_of: ClientOf
) -> None:
    few: FastAPI = create_app(settings.model_copy(update={"max_open_studies": 1}), store)
    problem(client_of(few).post("/v1/comparisons", json=SPEC), 429)
