"""A study with parameters that some trials lack, over HTTP: trials, tables, reports."""

from __future__ import annotations

import csv
import io
from typing import Any

import httpx
import optuna

from tests.api.calling import EXTERNAL, fields, ok, sqlite_only
from tests.reports.reading import check, words

SPACE: dict[str, dict[str, Any]] = {
    "optimizer": {"type": "values", "values": ["sgd", "adam"]},
    "momentum": {"type": "float", "low": 0, "high": 0.9, "when": {"optimizer": "sgd"}},
    "rate": {"type": "float", "low": 1e-4, "high": 1, "log": True, "zero": True,
             "when": {"optimizer": ["adam"]}},
}  # fmt: skip


@sqlite_only
def test_trials_lack_what_does_not_belong_to_them(client: httpx.Client, migrated_url: str) -> None:
    study = {
        **EXTERNAL,
        "space": SPACE,
        "sampler": {"name": "gp"},
        "budget": {"trials": 26, "max_parallel": 26},
    }
    wrong = {**SPACE, "momentum": {**SPACE["momentum"], "when": {"optimiser": "sgd"}}}
    assert fields(client.post("/v1/studies", json={**study, "space": wrong})) == {
        "space.momentum.when.optimiser": "is not a parameter of the space"
    }
    ok(client.post("/v1/studies", json=study), 201)

    def enqueue(*configs: dict[str, Any]) -> httpx.Response:
        return client.post("/v1/studies/x/trials:enqueue", json={"configs": configs})

    assert fields(enqueue({"optimizer": "adam", "momentum": 0.5}, {"momentum": 0.1})) == {
        "configs.0.momentum": 'belongs only where optimizer is "sgd"',
        "configs.1.momentum": 'belongs only where optimizer is "sgd"; give optimizer too',
    }
    first, second = ok(enqueue({"optimizer": "sgd"}, {"optimizer": "adam", "rate": 0.0}))["trials"]
    assert set(first["config"]) == {"optimizer", "momentum"}
    assert second["config"] == {"optimizer": "adam", "rate": 0.0}
    for _ in range(2):
        for trial in ok(client.post("/v1/studies/x/trials:suggest", json={"count": 13}))["trials"]:
            config = trial["config"]
            others = {"sgd": {"momentum"}, "adam": {"rate"}}[config["optimizer"]]
            assert set(config) == {"optimizer", *others}
            end = {"attempt": 1, "value": sum(config[name] for name in others)}
            ok(client.post(f"/v1/studies/x/trials/{trial['number']}:complete", json=end))
    rows = list(csv.DictReader(io.StringIO(client.get("/v1/studies/x/export").text)))
    assert len(rows) == 26
    for row in rows:
        assert (row["params_momentum"] == "") == (row["params_optimizer"] == "adam")
    report = words(check(client.get("/v1/studies/x/report").text))
    assert '0.0 to 0.9; where optimizer is "sgd"' in report.replace("0 to 0.9", "0.0 to 0.9")
    assert "passes by the parameters that its trial lacks" in report
    loaded = optuna.load_study(study_name="x", storage=optuna.storages.RDBStorage(migrated_url))
    for trial in loaded.trials:
        expected = {"sgd": {"momentum"}, "adam": {"rate_zero"}}[trial.params["optimizer"]]
        assert expected <= set(trial.params) == set(trial.distributions)
        assert ("momentum" in trial.params) != ("rate_zero" in trial.params)


@sqlite_only
def test_what_is_enqueued_keeps_the_constraints(client: httpx.Client) -> None:
    space = {"a": {"type": "int", "low": 0, "high": 9}, "b": {"type": "int", "low": 0, "high": 5}}
    study = {**EXTERNAL, "space": space, "constraints": ["a <= b", "a + c < 3"]}
    assert fields(client.post("/v1/studies", json=study)) == {
        "constraints.1": "at character 5: c is not a parameter of the space"
    }
    study["constraints"] = ["a <= b", "a >= 1"]
    ok(client.post("/v1/studies", json=study), 201)
    configs = [{"a": 3, "b": 2}, {"a": 3, "b": 3}]
    answer = client.post("/v1/studies/x/trials:enqueue", json={"configs": configs})
    assert fields(answer) == {"configs.0.a": "breaks the constraint a <= b"}
    configs = [{"a": 7}, {"b": 0}, {"b": 1}]
    answer = client.post("/v1/studies/x/trials:enqueue", json={"configs": configs})
    reason = "no trial with it keeps the constraints a <= b, a >= 1"
    assert fields(answer) == {"configs.0.a": reason, "configs.1.b": reason}
    (trial,) = ok(client.post("/v1/studies/x/trials:enqueue", json={"configs": [{"b": 1}]}))[
        "trials"
    ]
    assert trial["config"] == {"a": 1, "b": 1}
    assert "a &lt;= b, a &gt;= 1" in client.get("/v1/studies/x/report").text
