"""The API does what its OpenAPI document says, and nothing that it does not say.

schemathesis makes requests of the document, good ones and bad ones, sends them over HTTP to the
real app on a database with studies, trials and a worker in it, and checks each answer against the
document.  `make fuzz` runs the same with many more requests and prints a line for each database.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ridgeline.service import projection, tokens
from ridgeline.service.api import comparison_examples, examples
from ridgeline.service.api.app import create_app
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import DatabaseClock, Store
from tests.api.calling import EXTERNAL, ok
from tests.api.serving import serving

CASES = int(os.environ.get("FUZZ_CASES", "0"))
"""How many to send at least; 0: the few of a test."""

ROOT = Path(__file__).parents[2]

PHASES_OF_A_TEST = {"sqlite": "examples,fuzzing,stateful", "postgresql": "examples,coverage"}
"""`coverage` has the limits of every field, which columns of PostgreSQL have too."""


class Counting:
    """Counts the answers of an app by their status."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.answers: Counter[int] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.answers[message["status"]] += 1
                if CASES and self.answers.total() % 1_000 == 0:
                    print(f"{self.answers.total()} requests", flush=True)
            await send(message)

        await self._app(scope, receive, counted)


def populate(client: httpx.Client) -> tuple[str, str]:
    """Studies in several states, with the names that `schemathesis.toml` has.

    Returns:
        The ids of a worker that requests are made for, and of one whose runs they leave alone.
    """

    def study(name: str, spec: dict[str, Any], num_trials: int) -> None:
        spec = {**spec, "name": name, "budget": {"trials": num_trials}}
        ok(client.post("/v1/studies", json=spec), 201)

    study("held", examples.GRID_SPEC, 4)
    holder = worker_with_runs(client)
    study("packed", examples.TPE_SPEC, 50)
    study("grid", examples.GRID_SPEC, 9)
    worker = worker_with_runs(client)
    study("external", EXTERNAL, 1_000)
    for name in ("compared", "paused", *(f"over-{number}" for number in range(10))):
        ok(client.post("/v1/comparisons", json={**comparison_examples.SPEC, "name": name}), 201)
    ok(client.post("/v1/comparisons/paused:pause"))
    for number in range(5):
        ok(client.post(f"/v1/comparisons/over-{number}:cancel"))
    for name in ("ended", *(f"doomed-{number}" for number in range(30))):
        study(name, EXTERNAL, 4)
    ok(client.post("/v1/studies/external/trials:suggest", json={"count": 100}))
    ok(client.post("/v1/studies/ended/trials:suggest", json={"count": 4}))
    epochs = [{"epoch": 1, "metrics": {"error": 0.5}}]
    failure = {"state": "FAIL", "reason": "diverged"}
    ends = [{"state": "COMPLETE"}, {"state": "PRUNED"}, failure, {"value": 0.25}]
    reports = [
        {"number": number, "attempt": 1, "epochs": epochs, "end": end}
        for number, end in enumerate(ends)
    ]
    ok(client.post("/v1/studies/ended/trials:report", json={"trials": reports}))
    return worker, holder


def worker_with_runs(client: httpx.Client) -> str:
    """A worker that trains four runs, and has reported two epochs of each; its id."""
    worker = str(ok(client.post("/v1/workers", json=examples.REGISTRATION), 201)["id"])
    free = {"sync_seq": 1, "free_slots": {"cpu:0": 4}}
    started = ok(client.post(f"/v1/workers/{worker}:sync", json=free))["start"]
    keys = [{"run": order["run"], "attempt": order["attempt"]} for order in started]
    statement = {
        "sync_seq": 2,
        "held": [{**key, "device": "cpu:0", "program": "fuzzed"} for key in keys],
        "reports": [{**key, "epoch": epoch, "metrics": {}} for key in keys for epoch in (1, 2)],
    }
    ok(client.post(f"/v1/workers/{worker}:sync", json=statement))
    return worker


def run_schemathesis(url: str, folder: Path, *options: str, **variables: str) -> dict[str, Any]:
    """Its report, with what it printed as `output`."""
    env = {k: text for k, text in os.environ.items() if not k.startswith(("COV_", "COVERAGE_"))}
    report = folder / "report.json"
    config = ROOT / "tests" / "fuzz" / "schemathesis.toml"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "--no-color"),
            *("run", f"{url}/openapi.json", "--report-json-path", str(report), *options),
        ],
        env={**env, "PYTHONPATH": str(ROOT), **variables},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert report.exists(), done.stdout
    return {**json.loads(report.read_text()), "output": done.stdout}


@pytest.mark.slow
def test_the_api_keeps_to_its_document(migrated_url: str, tmp_path: Path) -> None:
    store = Store(migrated_url, clock=DatabaseClock(), project=projection.project)
    with store.transaction() as tx:
        _, token = tokens.create(tx, "schemathesis", ["admin"])
        revocable, _ = tokens.create(tx, "nobody", ["read"])
    # The worker is only said to be there, so it must not be lost; nor has a call to wait for work.
    settings = Settings(
        _env_file=None,
        lease_seconds=86_400,
        sync_interval_seconds=0.01,
        max_body_bytes=2**20,
        artifacts=str(tmp_path / "artifacts"),
    )
    app = Counting(create_app(settings, store))
    database = store.url.get_backend_name()
    phases = () if CASES else ("--phases", PHASES_OF_A_TEST[database])
    with serving(app) as url:
        with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}) as client:
            worker, holder = populate(client)
        app.answers.clear()
        report = run_schemathesis(
            url,
            tmp_path,
            *phases,
            *("--max-examples", str(max(8, CASES // 36))),
            RIDGELINE_FUZZ_TOKEN=token,
            RIDGELINE_FUZZ_REVOCABLE=revocable.id,
            RIDGELINE_FUZZ_WORKER=worker,
            RIDGELINE_FUZZ_HOLDER=holder,
        )
    store.close()
    row = {
        "database": database,
        "cases": report["test_cases"]["generated"],
        "answers": {str(status): count for status, count in sorted(app.answers.items())},
        "server_errors": sum(n for s, n in app.answers.items() if s >= 500 and s != 503),
        "mismatches": {one["title"]: one["count"] for one in report["failures"]},
        "seconds": round(report["running_time"]),
    }
    if CASES:
        print(json.dumps(row), flush=True)
    assert report["complete"], report["output"]
    assert report["errors"] == [], report["output"]
    assert row["mismatches"] == {}, report["output"]
    assert row["server_errors"] == 0, row
    assert row["cases"] >= CASES, row
    refused = [
        operation
        for operation, phases in report["valid_rates"].items()
        if not any(rates["accepted"] for rates in phases.values())
    ]
    # A few requests may all meet a study that has ended.
    assert not CASES or refused == [], "no request of these operations ever came through"
