"""The client and the real api understand each other."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ridgeline.service.api import examples
from ridgeline.service.client import ApiError, Client
from ridgeline.service.lifecycle import FailReason, StudyState, TrialState
from ridgeline.service.protocol import RunEnded, SyncRequest, WorkerRegistration
from tests.api.calling import EXTERNAL, SPEC, sqlite_only
from tests.parallel import in_parallel
from tests.service.factory import spec
from tests.service.test_comparisons import SPEC as COMPARISON

pytestmark = sqlite_only


def test_a_study_trained_by_ones_own_program(client: Client) -> None:
    client.create_study(EXTERNAL)
    assert client.enqueue("x", [{"depth": 7}])[0].origin == "enqueued"
    study = client.external("x")
    for trial in study:
        trial.report(1, {"error": int(trial.config["depth"])})
        trial.complete()
    assert study.reason == "the study is COMPLETED"
    assert client.study("x").state is StudyState.COMPLETED
    trials = list(client.trials("x", state=TrialState.COMPLETE))
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    best = client.best("x")
    assert best.value == min(trial.value for trial in trials if trial.value is not None)
    assert client.trial("x", 0).epochs[0].metrics == {"error": 7.0}
    assert len(list(csv.DictReader(io.StringIO(client.export("x"))))) == 4


def test_a_comparison_call_by_call(client: Client) -> None:
    # With all that is left out, so that the parsed spec is the same body.
    whole = {**COMPARISON, "train_on": "train"}
    created = client.create_comparison(whole, idempotency_key="k")
    assert client.create_comparison(created.spec, idempotency_key="k") == created
    assert [one.name for one in client.comparisons()] == ["c"]
    assert client.pause_comparison("c").state is StudyState.PAUSED
    assert client.resume_comparison("c").state is StudyState.QUEUED
    assert client.extend_comparison("c", trials=5).arms[0].search.num_trials == 7
    added = client.add_arms("c", {"wide": {"task": {"hidden": np.array([64])}}})
    assert added.arms[2].search.num_trials == 7
    assert len(client.add_arms("c", ("dropout", "l1")).arms) == 5
    with pytest.raises(ApiError) as refused:
        client.add_arms("c", 7)  # type: ignore[arg-type]
    assert [field for field, _ in refused.value.problems] == ["arms"]
    assert client.cancel_comparison("c").state is StudyState.CANCELLED
    assert client.delete_comparison("c").state is StudyState.CANCELLED
    with pytest.raises(ApiError, match="there is no comparison named c"):
        client.comparison("c")


def test_a_study_is_archived(client: Client) -> None:
    client.create_study(EXTERNAL)
    client.cancel("x")
    assert client.archive("x").archived
    assert list(client.studies()) == []
    assert [study.name for study in client.studies(archived=True)] == ["x"]
    assert not client.unarchive("x").archived
    assert [study.name for study in client.studies()] == ["x"]


def test_the_same_call_by_call(client: Client) -> None:
    client.create_study(EXTERNAL)
    while (answer := client.suggest("x", count=3)).trials:
        for trial in answer.trials:
            depth = int(trial.config["depth"])
            client.report(
                "x", trial.number, attempt=trial.attempt, epoch=1, metrics={"error": depth}
            )
            client.complete("x", trial.number, attempt=trial.attempt)
    assert client.study("x").trials.complete == 4


def test_many_trials_at_once(client: Client) -> None:
    client.create_study(EXTERNAL)
    study = client.external("x", lease_seconds=60)
    one, *others = study.suggest(9)
    with study.batch():
        one.complete(state="FAIL", reason=FailReason.DIVERGED, error="nan")
        for trial in others:
            trial.report(1, {"error": 0.5})
            trial.complete(metrics={"test_error": 0.25})
    found = client.study("x").trials
    assert (found.complete, found.fail) == (3, 1)
    assert client.trial("x", 1).runs[0].metrics == {"test_error": 0.25}
    with pytest.raises(ApiError, match="COMPLETE already"):
        others[0].complete(7.0)


def test_threads_share_a_study(client: Client) -> None:
    client.create_study({**EXTERNAL, "budget": {"trials": 24}})
    study = client.external("x")

    def work() -> None:
        for trial in study:
            trial.report(1, {"error": 0.5})
            trial.complete()

    in_parallel(4, work)
    assert client.study("x").trials.complete == 24


WING: dict[str, Any] = {
    "name": "wing",
    "task": {"name": "external"},
    "space": {
        "angle": {"type": "float", "low": -5.0, "high": 15.0},
        "ribs": {"type": "int", "low": 4, "high": 40},
    },
    "sampler": {"name": "random", "seed": 1},
    "objective": {"metric": "drag", "direction": "minimize"},
    "budget": {"trials": 12},
}


def function_of_the_docs(name: str) -> Any:
    page = Path(__file__).parents[2] / "docs" / "external.md"
    pattern = rf"^```python\n(def {name}\(.*?)^```$"
    (code,) = re.findall(pattern, page.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return names[name]


def test_batches_as_the_docs_tell_it(client: Client) -> None:
    client.create_study({**WING, "budget": {"trials": 40}})
    function_of_the_docs("train_all")(client.external("wing"))
    assert client.study("wing").trials.complete == 40


def test_pruning_as_the_docs_tell_it(client: Client) -> None:
    train = function_of_the_docs("train")
    client.create_study({**WING, "pruner": {"name": "halving", "eta": 3}})
    for trial in client.external("wing"):
        train(trial)
    study = client.study("wing")
    assert study.state is StudyState.COMPLETED
    assert study.trials.pruned > 3
    assert study.trials.complete > 0


def test_events_end_with_the_study(client: Client) -> None:
    client.create_study(EXTERNAL)
    client.cancel("x")
    events = list(client.events("x"))
    assert events[-1].data["state"] == "CANCELLED"
    assert list(client.events("x", after=events[-1].id)) == []


def test_the_same_key_gives_the_same_study(client: Client) -> None:
    first = client.create_study(SPEC, idempotency_key="one")
    assert client.create_study(SPEC, idempotency_key="one") == first
    with pytest.raises(ApiError, match="another name") as caught:
        client.create_study(SPEC, idempotency_key="two")
    assert caught.value.status == 409
    with pytest.raises(ApiError, match="use a new key"):
        client.create_study(EXTERNAL, idempotency_key="one")


def test_verbs(client: Client) -> None:
    client.create_study(spec("s"))
    assert client.pause("s").state is StudyState.PAUSED
    assert client.resume("s").state is StudyState.QUEUED
    assert client.stop("s").stopping
    assert client.study("s").state is StudyState.COMPLETED


def test_wrong_fields_are_told(client: Client) -> None:
    with pytest.raises(ApiError, match=r"budget\.trials: ") as caught:
        client.create_study({**SPEC, "budget": {"trials": -1}})
    assert caught.value.problems[0][0] == "budget.trials"
    with pytest.raises(ApiError, match="there is no study named nobody"):
        client.study("nobody")


def test_lists_go_on_past_the_first_page(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ridgeline.service.client._PAGE_SIZE", 2)
    for number in range(5):
        client.create_study({**EXTERNAL, "name": f"x{number}"})
    client.cancel("x3")
    assert [study.name for study in client.studies()] == ["x4", "x3", "x2", "x1", "x0"]
    assert [study.name for study in client.studies(state=StudyState.CANCELLED)] == ["x3"]
    client.enqueue("x0", [{"depth": depth} for depth in (1, 2, 3)])
    assert [trial.config["depth"] for trial in client.trials("x0")] == [1, 2, 3]


def test_the_worker_protocol_and_the_catalog(client: Client) -> None:
    client.create_study(spec("s"))
    registration = WorkerRegistration.model_validate(examples.REGISTRATION)
    worker = client.register_worker(registration)
    device = registration.devices[0].name
    statement = SyncRequest(sync_seq=1, free_slots={device: 1})
    (order,) = client.sync(worker.id, statement).start
    assert client.sync(worker.id, statement).start == (order,)
    ended = RunEnded(run=order.run, attempt=order.attempt, outcome="complete", value=0.5)
    assert client.sync(worker.id, SyncRequest(sync_seq=2, ended=(ended,))).refused == ()
    assert client.best("s").value == 0.5
    assert [found.name for found in client.workers()] == [registration.name]
    assert "mlp" in [task.name for task in client.tasks()]
    assert "digits" in [dataset.name for dataset in client.datasets()]
    assert client.is_ready()
