"""A refusal says what is so and what a person can do, in words for every way to ask."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ridgeline.service.lifecycle import ENDED_STUDY, STUDY_VERBS, StudyState
from ridgeline.service.store.session import Store
from ridgeline.service.workers import expire
from tests.api.calling import EXTERNAL, SPEC, fields, ok, problem, sqlite_only
from tests.conftest import ManualClock

pytestmark = sqlite_only

X = "/v1/studies/x"
GRID = {
    **EXTERNAL,
    "space": {"depth": {"type": "values", "values": [1, 2, 3]}},
    "sampler": {"name": "grid"},
    "budget": {},
}


def post(client: httpx.Client, spec: dict[str, Any]) -> None:
    ok(client.post("/v1/studies", json=spec), 201)


def end_all(client: httpx.Client, *, fail: bool = False) -> None:
    end = {"state": "FAIL", "reason": "diverged"} if fail else {"value": 1.0}
    for trial in ok(client.post(f"{X}/trials:suggest", json={"count": 100}))["trials"]:
        path = f"{X}/trials/{trial['number']}:complete"
        ok(client.post(path, json={"attempt": trial["attempt"], **end}))


def detail(answer: httpx.Response, status: int = 409) -> str:
    return str(problem(answer, status)["detail"])


def test_a_budget_is_too_large_as_a_sum(client: httpx.Client) -> None:
    post(client, {**EXTERNAL, "budget": {"trials": 100_000, "seconds": 10}})
    told = fields(client.post(f"{X}:extend", json={"trials": 1, "seconds": 31_536_000}))
    assert told == {
        "trials": "the budget would come to 100001 trials, and may have 100000 at most; clone the "
        "study for more",
        "seconds": "the budget would come to 31536010 seconds, and may have 31536000 at most",
    }


@pytest.mark.parametrize("num_enqueued", [0, 2])
def test_a_whole_grid_can_be_cloned(num_enqueued: int, client: httpx.Client) -> None:
    post(client, GRID)
    for _ in range(num_enqueued):
        ok(client.post(f"{X}/trials:enqueue", json={"configs": [{"depth": 2}]}))
    end_all(client)
    told = detail(client.post(f"{X}/trials:enqueue", json={"configs": [{"depth": 1}]}))
    assert told == "x takes no more trials: it is COMPLETED; clone it, and enqueue there"
    told = fields(client.post(f"{X}:extend", json={"trials": 1}))["trials"]
    assert told.startswith("the grid has only 3 cells; clone the study with more points or values")


def test_a_grid_that_was_stopped_can_be_extended(client: httpx.Client) -> None:
    post(client, GRID)
    ok(client.post(f"{X}/trials:suggest", json={}))
    ok(client.post(f"{X}:stop"))
    told = detail(client.post(f"{X}/trials:enqueue", json={"configs": [{"depth": 1}]}))
    assert told == "x takes no more trials: it is stopping; extend it first"
    ok(client.post(f"{X}:extend", json={"trials": 1}))


@pytest.mark.parametrize("verb", STUDY_VERBS)
@pytest.mark.parametrize("state", StudyState)
def test_a_verb_that_is_refused_names_a_way_on(
    verb: str, state: StudyState, client: httpx.Client
) -> None:
    reach(client, state)
    answer = client.post(f"{X}:{verb}")
    if answer.status_code == 200:
        return
    told = detail(answer)
    assert told.startswith(f"a study that is {state} cannot be told to {verb}: ")
    assert ("clone" in told) == (state in ENDED_STUDY)
    assert ":clone" not in told


def reach(client: httpx.Client, state: StudyState) -> None:
    post(client, {**EXTERNAL, "budget": {"trials": 2}})
    match state:
        case StudyState.RUNNING:
            ok(client.post(f"{X}/trials:suggest", json={}))
        case StudyState.PAUSED:
            ok(client.post(f"{X}:pause"))
        case StudyState.COMPLETED | StudyState.FAILED:
            end_all(client, fail=state is StudyState.FAILED)
        case StudyState.CANCELLED:
            ok(client.post(f"{X}:cancel"))
    assert ok(client.get(X))["state"] == state


@pytest.mark.parametrize("verb", ["pause", "resume", "stop"])
@pytest.mark.parametrize("fail", [False, True])
def test_repeating_a_verb_is_harmless_once_the_study_has_ended(
    verb: str, fail: bool, client: httpx.Client
) -> None:
    post(client, {**EXTERNAL, "budget": {"trials": 1}})
    (trial,) = ok(client.post(f"{X}/trials:suggest", json={}))["trials"]
    if verb == "resume":
        ok(client.post(f"{X}:pause"))
    ok(client.post(f"{X}:{verb}"))
    end = {"state": "FAIL", "reason": "diverged"} if fail else {"value": 1.0}
    ok(client.post(f"{X}/trials/0:complete", json={"attempt": trial["attempt"], **end}))
    ended = ok(client.get(X))
    assert ended["state"] == ("FAILED" if fail else "COMPLETED")
    assert ok(client.post(f"{X}:{verb}")) == ended


def test_an_open_study_is_cancelled_before_it_is_deleted(client: httpx.Client) -> None:
    post(client, EXTERNAL)
    told = detail(client.delete(X, headers={"If-Match": "*"}))
    assert told == "x is QUEUED; cancel it before deleting it"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"bogus": None}, "bogus"),
        ({"budget": {"bogus": None}}, "budget.bogus"),
        ({"space": {"bogus": None}}, "space.bogus"),
        ({"bogus": 1}, "bogus"),
    ],
)
def test_a_clone_has_no_unknown_field(
    changes: dict[str, Any], field: str, client: httpx.Client
) -> None:
    post(client, EXTERNAL)
    told = fields(client.post(f"{X}:clone", json={"name": "y", **changes}))
    assert told == {field: "is not a field here"}


def test_a_clone_may_have_another_task(client: httpx.Client) -> None:
    post(client, EXTERNAL)
    task = {"name": "mlp", "dataset": "digits"}
    told = fields(client.post(f"{X}:clone", json={"name": "y", "task": task}))
    assert not any(field.startswith("task") for field in told)
    changes = {name: SPEC[name] for name in ("task", "space")}
    objective = {"metric": "validation_accuracy", "direction": "maximize"}
    body = {"name": "y", **changes, "objective": objective}
    body["space"] = {**SPEC["space"], "depth": None}
    assert ok(client.post(f"{X}:clone", json=body), 201)["spec"]["task"]["dataset"] == "digits"
    back = {"name": "z", "task": {"name": "external"}, "early_stopping": None}
    cloned = ok(client.post("/v1/studies/y:clone", json=back), 201)
    assert cloned["spec"]["task"]["name"] == "external"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("[]", "the body must be an object"),
        ("3", "the body must be an object"),
        ("[" + "1," * 100_000 + "1]", "the body must have at most 100000 values"),
    ],
)
def test_the_body_is_named(body: str, told: str, client: httpx.Client, app: Any) -> None:
    app.state.context.settings.max_body_bytes = 2**20
    post(client, EXTERNAL)
    json = {"Content-Type": "application/json"}
    for path in ("/v1/studies", f"{X}:clone", f"{X}:extend", f"{X}:pause"):
        assert detail(client.post(path, content=body, headers=json), 422).startswith(told)
    told_by_syntax = problem(client.post(X + ":pause", content="{", headers=json), 400)
    assert told_by_syntax["errors"][0]["message"].startswith("is not JSON: ")


def test_an_attempt_that_was_handed_back_is_told_so(
    client: httpx.Client, store: Store, clock: ManualClock
) -> None:
    post(client, EXTERNAL)
    ok(client.post(f"{X}/trials:suggest", json={"lease_seconds": 10}))
    clock.advance(11)
    expire(store)
    for verb, sent in (("complete", {"value": 1.0}), ("report", {"epoch": 1, "metrics": {}})):
        told = detail(client.post(f"{X}/trials/0:{verb}", json={"attempt": 1, **sent}))
        assert told == (
            "attempt 1 at trial 0 of x was handed back, since its lease ran out or it failed, and "
            "the trial waits to be tried again; drop it, and take what suggest gives"
        )
