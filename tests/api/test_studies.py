"""The contract of /v1/studies, on both databases."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from sqlalchemy.engine import make_url

from ridgeline.search.tasks.registry import BUILT_IN
from ridgeline.service.api.app import create_app
from ridgeline.service.dashboard.server import open_storage
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store
from tests.api.calling import EXTERNAL, SPEC, fields, ok, problem
from tests.api.conftest import ClientOf
from tests.conftest import ManualClock


def test_post_and_get(client: httpx.Client) -> None:
    created = ok(client.post("/v1/studies", json=SPEC), 201)
    assert created["name"] == "s"
    assert created["state"] == "QUEUED"
    assert created["num_trials"] == 4
    assert created["spec"]["budget"] == {
        "trials": 4,
        "epochs": 20,
        "seconds": None,
        "run_seconds": None,
        "max_parallel": None,
    }
    copied = {**created, "optuna_study_id": 1}  # at the end of the transaction
    assert ok(client.get("/v1/studies/s")) == copied
    assert "worker" in created["reason"]


def test_a_name_is_given_once(client: httpx.Client) -> None:
    ok(client.post("/v1/studies", json=SPEC), 201)
    body = problem(client.post("/v1/studies", json=SPEC), 409)
    assert body["type"] == "urn:ridgeline:conflict"
    assert "s" in body["detail"]


def test_of_many_at_once_one_gets_the_name(client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/studies", json=SPEC), range(8)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7


def test_verbs(client: httpx.Client) -> None:
    ok(client.post("/v1/studies", json=SPEC), 201)
    assert ok(client.post("/v1/studies/s:pause"))["state"] == "PAUSED"
    assert ok(client.post("/v1/studies/s:pause"))["state"] == "PAUSED"
    assert ok(client.post("/v1/studies/s:resume"))["state"] == "QUEUED"
    assert ok(client.post("/v1/studies/s:stop", json={}))["stopping"]
    other = {**SPEC, "name": "t"}
    ok(client.post("/v1/studies", json=other), 201)
    assert ok(client.post("/v1/studies/t:cancel"))["state"] == "CANCELLED"
    problem(client.post("/v1/studies/t:resume"), 409)
    assert "force" in fields(client.post("/v1/studies/t:cancel", json={"force": True}))


def test_what_does_not_exist(client: httpx.Client) -> None:
    for path in ("", "/trials", "/trials/0", "/best", "/export", "/events"):
        body = problem(client.get(f"/v1/studies/nobody{path}"), 404)
        assert "nobody" in body["detail"]
    problem(client.post("/v1/studies/nobody:cancel"), 404)
    ok(client.post("/v1/studies", json=SPEC), 201)
    problem(client.get("/v1/studies/s/best"), 404)
    problem(client.get("/v1/studies/s/trials/0"), 404)


def test_pages(client: httpx.Client) -> None:
    for n in range(5):
        ok(client.post("/v1/studies", json={**SPEC, "name": f"s{n}"}), 201)
    ok(client.post("/v1/studies/s1:cancel"))
    names: list[str] = []
    token: str | None = None
    for _ in range(3):
        params = {"page_size": "2"} | ({} if token is None else {"page_token": token})
        page = ok(client.get("/v1/studies", params=params))
        assert len(page["studies"]) <= 2
        names += [study["name"] for study in page["studies"]]
        token = page["next_page_token"]
    assert names == ["s4", "s3", "s2", "s1", "s0"]
    assert token is None
    page = ok(client.get("/v1/studies", params={"state": "CANCELLED"}))
    assert [study["name"] for study in page["studies"]] == ["s1"]


def test_an_etag_saves_the_answer(client: httpx.Client) -> None:
    ok(client.post("/v1/studies", json=SPEC), 201)
    etag = client.get("/v1/studies/s").headers["etag"]
    again = client.get("/v1/studies/s", headers={"If-None-Match": f'"x", W/{etag}'})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    ok(client.post("/v1/studies/s:pause"))
    assert client.get("/v1/studies/s", headers={"If-None-Match": etag}).status_code == 200


def test_too_many_unfinished_studies(store: Store, settings: Settings, client_of: ClientOf) -> None:
    client = client_of(create_app(settings.model_copy(update={"max_open_studies": 1}), store))
    ok(client.post("/v1/studies", json=SPEC), 201)
    body = problem(client.post("/v1/studies", json={**SPEC, "name": "t"}), 429)
    assert body["type"] == "urn:ridgeline:limit-exceeded"
    ok(client.post("/v1/studies/s:cancel"))
    ok(client.post("/v1/studies", json={**SPEC, "name": "t"}), 201)


def test_an_external_study_from_end_to_end(client: httpx.Client) -> None:
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    enqueued = ok(client.post("/v1/studies/x/trials:enqueue", json={"configs": [{"depth": 9}]}))
    assert [trial["origin"] for trial in enqueued["trials"]] == ["enqueued"]
    given = ok(client.post("/v1/studies/x/trials:suggest", json={"count": 4}))["trials"]
    assert [trial["number"] for trial in given] == [0, 1, 2, 3]
    for trial in given:
        path = f"/v1/studies/x/trials/{trial['number']}"
        metrics = {"error": trial["config"]["depth"] / 10}
        report = {"attempt": trial["attempt"], "epoch": 1, "metrics": metrics}
        ok(client.post(f"{path}:report", json=report))
        ok(client.post(f"{path}:complete", json={"attempt": trial["attempt"]}))
    body = problem(client.post(f"{path}:complete", json={"attempt": 1, "value": 3.0}), 409)
    assert body["type"] == "urn:ridgeline:stale-attempt"
    assert ok(client.get("/v1/studies/x"))["state"] == "COMPLETED"
    page = ok(client.get("/v1/studies/x/trials", params={"page_size": 3}))
    assert [trial["number"] for trial in page["trials"]] == [0, 1, 2]
    token = page["next_page_token"]
    last = ok(client.get("/v1/studies/x/trials", params={"page_token": token}))
    assert [trial["number"] for trial in last["trials"]] == [3]
    best = ok(client.get("/v1/studies/x/best"))
    assert best["value"] == min(trial["value"] for trial in page["trials"] + last["trials"])
    history = ok(client.get("/v1/studies/x/trials/0"))["epochs"]
    assert history == [{"replicate": 0, "epoch": 1, "metrics": {"error": 0.9}}]
    export = client.get("/v1/studies/x/export")
    assert export.headers["content-type"] == "text/csv; charset=utf-8"
    assert export.headers["content-disposition"] == 'attachment; filename="x.csv"'
    assert len(export.text.splitlines()) == 5


def test_a_program_is_told_to_prune(client: httpx.Client) -> None:
    pruner = {"name": "halving", "eta": 2}
    ok(client.post("/v1/studies", json={**EXTERNAL, "pruner": pruner}), 201)
    ok(client.post("/v1/studies/x/trials:suggest", json={"count": 2}))
    told = []
    for number, error in ((0, 1.0), (1, 2.0)):
        report = {"attempt": 1, "epoch": 1, "metrics": {"error": error}}
        path = f"/v1/studies/x/trials/{number}:report"
        key = {"Idempotency-Key": str(number)}
        told.append(ok(client.post(path, json=report, headers=key)))
        assert ok(client.post(path, json=report, headers=key)) == told[-1]
    assert [answer["should_prune"] for answer in told] == [False, True]
    end = {"attempt": 1, "state": "PRUNED"}
    trial = ok(client.post("/v1/studies/x/trials/1:complete", json=end))
    assert (trial["state"], trial["value"]) == ("PRUNED", 2.0)


def test_a_pruner_is_refused_by_its_field(client: httpx.Client) -> None:
    for part, field in (
        ({"pruner": {"name": "median", "eta": 3}}, "pruner.eta"),
        ({"pruner": {"name": "nonsense"}}, "pruner.name"),
        ({"pruner": {"name": "halving"}, "reproducible": True}, "pruner"),
    ):
        assert fields(client.post("/v1/studies", json={**SPEC, **part})).keys() == {field}


def test_the_catalog(client: httpx.Client) -> None:
    tasks = ok(client.get("/v1/tasks"))
    assert {task["name"] for task in tasks["tasks"]} == {task.name for task in BUILT_IN}
    assert tasks["next_page_token"] is None
    expected: dict[str, Any] = {"datasets": [], "left_out": [], "next_page_token": None}
    assert ok(client.get("/v1/datasets")) == expected


def test_a_study_is_deleted_as_it_was_seen(client: httpx.Client) -> None:
    created = ok(client.post("/v1/studies", json=SPEC), 201)
    etag = client.get("/v1/studies/s").headers["etag"]
    problem(client.delete("/v1/studies/s"), 428)
    body = problem(client.delete("/v1/studies/s", headers={"If-Match": etag}), 409)
    assert "cancel it" in body["detail"]
    cancelled = ok(client.post("/v1/studies/s:cancel"))
    body = problem(client.delete("/v1/studies/s", headers={"If-Match": etag}), 412)
    assert body["type"] == "urn:ridgeline:precondition-failed"
    etag = client.get("/v1/studies/s").headers["etag"]
    wanted = {"If-Match": etag, "Idempotency-Key": "gone"}
    assert ok(client.delete("/v1/studies/s", headers=wanted)) == cancelled
    again = client.delete("/v1/studies/s", headers=wanted)
    assert (again.json(), again.headers["idempotency-replayed"]) == (cancelled, "true")
    problem(client.get("/v1/studies/s"), 404)
    problem(client.delete("/v1/studies/s", headers={"If-Match": "*"}), 404)
    assert ok(client.post("/v1/studies", json=SPEC), 201)["spec"] == created["spec"]
    ok(client.post("/v1/studies/s:cancel"))
    ok(client.delete("/v1/studies/s", headers={"If-Match": "*"}))


def test_lists_of_several_states_say_how_many_there_are(client: httpx.Client) -> None:
    for name in ("a", "b", "c", "d"):
        ok(client.post("/v1/studies", json={**EXTERNAL, "name": name}), 201)
    ok(client.post("/v1/studies/b:pause"))
    ok(client.post("/v1/studies/c:cancel"))

    def listed(query: str) -> tuple[list[str], int]:
        page = ok(client.get(f"/v1/studies?{query}"))
        return [study["name"] for study in page["studies"]], page["total_size"]

    assert listed("page_size=3") == (["d", "c", "b"], 4)
    assert listed("state=QUEUED&state=PAUSED&page_size=2") == (["d", "b"], 3)
    assert listed("state=CANCELLED") == (["c"], 1)
    assert listed("state=FAILED") == ([], 0)
    assert "state.1" in fields(client.get("/v1/studies?state=QUEUED&state=queued"))


def test_progress_within_a_trial_and_the_end_of_its_time_are_told(
    client: httpx.Client, clock: ManualClock
) -> None:
    budget = {"trials": 4, "seconds": 60}
    created = ok(client.post("/v1/studies", json={**EXTERNAL, "budget": budget}), 201)
    assert (created["mean_epoch"], created["deadline_at"]) == (None, None)
    ok(client.post("/v1/studies/x/trials:suggest", json={"count": 3}))
    for number, epoch in ((0, 1), (0, 3), (1, 2)):
        report = {"attempt": 1, "epoch": epoch, "metrics": {"error": 0.5}}
        ok(client.post(f"/v1/studies/x/trials/{number}:report", json=report))
    study = ok(client.get("/v1/studies/x"))
    assert study["mean_epoch"] == 2.5
    assert study["deadline_at"] == clock.seconds + 60
    ok(client.post("/v1/studies/x/trials/0:complete", json={"attempt": 1}))
    assert ok(client.get("/v1/studies/x"))["mean_epoch"] == 2
    assert ok(client.post("/v1/studies/x:cancel"))["mean_epoch"] is None


def test_the_id_of_the_copy_is_told(client: httpx.Client, migrated_url: str) -> None:
    ok(client.post("/v1/studies", json={**EXTERNAL, "name": "other"}), 201)
    ok(client.post("/v1/studies", json=EXTERNAL), 201)
    study_id = ok(client.get("/v1/studies/x"))["optuna_study_id"]
    storage = open_storage(make_url(migrated_url))
    assert storage.get_study_name_from_id(study_id) == "x"
    storage.remove_session()
    storage.engine.dispose()
