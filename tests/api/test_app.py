"""The app as a process has it: its lifespan, what it imports, its own data sets."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio.from_thread
import pytest

from ridgeline.search.tasks import datasets
from ridgeline.search.tasks.data import Dataset
from ridgeline.search.tasks.datasets import load
from ridgeline.service import workers
from ridgeline.service.api import app as app_module
from ridgeline.service.api.app import create_app, maintain
from ridgeline.service.errors import Unavailable
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store
from ridgeline.service.timekeeping import Timekeeper
from tests.api.calling import SPEC, fields, ok, sqlite_only
from tests.api.conftest import ClientOf
from tests.conftest import ManualClock
from tests.service.test_comparisons import SPEC as COMPARISON
from tests.tasks.idx_files import write_folder
from tests.tasks.table_files import write_csv


def test_the_api_imports_neither_torch_nor_sklearn() -> None:
    code = (
        "import ridgeline.service.api.app, sys; "
        "sys.exit(','.join({'torch', 'sklearn', 'optuna_dashboard'} & sys.modules.keys()) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@sqlite_only
def test_while_it_runs_leases_expire(
    settings: Settings,
    store: Store,
    portal: anyio.from_thread.BlockingPortal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app_module, "MAINTENANCE_SECONDS", 0)
    done = threading.Event()
    calls: list[Store] = []

    def expire(of: Store, *, by: float) -> int:
        calls.append(of)
        if len(calls) == 1:
            raise RuntimeError("the database restarts, say")
        done.set()
        return 0

    monkeypatch.setattr(workers, "expire", expire)
    app = create_app(settings.model_copy(update={"lease_seconds": 1e-3}), store)
    with portal.wrap_async_context_manager(app.router.lifespan_context(app)):
        assert done.wait(30)
    assert set(calls) == {store}
    assert not any(thread.name == "maintenance" for thread in threading.enumerate())


def test_maintenance_ends_when_told_to() -> None:
    stopping = threading.Event()
    stopping.set()
    maintain(None, stopping, Timekeeper(0))  # type: ignore[arg-type]


@sqlite_only
def test_nobody_loses_a_lease_that_could_not_be_renewed(
    store: Store, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a start, and after a time without the database, a whole lease passes first."""
    began = clock.seconds
    expired_at: list[float] = []

    def expire(_store: Store, *, by: float) -> int:
        expired_at.append(clock.seconds - began)
        if len(expired_at) == 3:
            raise Unavailable("the database restarts")
        return 0

    class FourExpiries(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            clock.advance(timeout or 0)
            return len(expired_at) == 4

    monkeypatch.setattr(workers, "expire", expire)
    maintain(store, FourExpiries(), Timekeeper(30, monotonic=lambda: clock.seconds))
    assert expired_at == [30, 31, 32, 62]


@sqlite_only
@pytest.mark.parametrize("is_reachable", [True, False])
def test_the_clock_is_looked_at_before_anybody_is_served(
    settings: Settings,
    store: Store,
    portal: anyio.from_thread.BlockingPortal,
    monkeypatch: pytest.MonkeyPatch,
    is_reachable: bool,
) -> None:
    looked: list[Store] = []

    def keep(_self: Timekeeper, of: Store) -> float | None:
        looked.append(of)
        if not is_reachable:
            raise Unavailable("the database restarts")
        return None

    monkeypatch.setattr(app_module, "MAINTENANCE_SECONDS", 3_600)
    monkeypatch.setattr(Timekeeper, "keep", keep)
    app = create_app(settings, store)
    with portal.wrap_async_context_manager(app.router.lifespan_context(app)):
        assert looked == [store]


@sqlite_only
def test_its_own_data_sets_are_known_before_a_worker_has_them(
    settings: Settings, store: Store, client_of: ClientOf, tmp_path: Path
) -> None:
    spec = {**SPEC, "task": {"name": "mlp", "dataset": "tiny"}}
    without = client_of(create_app(settings, store))
    assert "task.dataset" in fields(without.post("/v1/studies", json=spec))
    write_folder(tmp_path / "tiny")
    (tmp_path / "broken").mkdir()
    app = create_app(settings.model_copy(update={"data_root": tmp_path}), store)
    client = client_of(app)
    created = ok(client.post("/v1/studies", json=spec), 201)
    (dataset,) = ok(client.get("/v1/datasets"))["datasets"]
    assert (dataset["name"], dataset["num_workers"]) == ("tiny", 0)
    assert created["data_fingerprint"] == dataset["fingerprint"]


@sqlite_only
def test_what_does_not_fit_its_data_sets_is_refused_by_its_field(
    settings: Settings, store: Store, client_of: ClientOf, tmp_path: Path
) -> None:
    rows = [[row, ["gas", "wood"][row % 2], f"house {row % 3}"] for row in range(12)]
    write_csv(tmp_path / "flats" / "train.csv", [["area", "label", "house"], *rows])
    client = client_of(create_app(settings.model_copy(update={"data_root": tmp_path}), store))
    split = {"kind": "group", "column": "street"}
    task = {"name": "mlp", "dataset": "flats", "split": split, "class_weights": [1, 2, 3]}
    refused = fields(client.post("/v1/studies", json={**SPEC, "task": task}))
    assert refused.keys() == {"task.split.column", "task.class_weights"}
    assert "no column 'street'; it has 'area', 'label', 'house'" in refused["task.split.column"]

    base = {**COMPARISON["base"], "task": {**task, "class_weights": [1, 2]}}
    arms = {"none": {}, "weighed": {"task": {"class_weights": [1, 2, 3]}}}
    refused = fields(
        client.post("/v1/comparisons", json={**COMPARISON, "base": base, "arms": arms})
    )
    assert refused.keys() == {"base.task.split.column", "arms.weighed.task.class_weights"}

    split["column"] = "house"
    ok(client.post("/v1/studies", json={**SPEC, "task": {**task, "class_weights": [1, 2]}}), 201)
    (dataset,) = ok(client.get("/v1/datasets"))["datasets"]
    assert (dataset["files"], dataset["rarest_class"]) == ("table", "gas")
    assert [column["name"] for column in dataset["columns"]] == ["area", "label", "house"]


@sqlite_only
def test_nobody_waits_for_a_folder_that_another_request_reads(
    settings: Settings,
    store: Store,
    client_of: ClientOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def slow(name: str, data_root: Path | None) -> Dataset:
        if name == "large":
            has_begun.set()
            assert may_end.wait(60)
        return load(name, data_root)

    monkeypatch.setattr(datasets, "load", slow)
    write_folder(tmp_path / "large")
    client = client_of(create_app(settings.model_copy(update={"data_root": tmp_path}), store))
    of_large = {**SPEC, "name": "waits", "task": {"name": "mlp", "dataset": "large"}}
    with ThreadPoolExecutor() as threads:
        waits = threads.submit(client.post, "/v1/studies", json=of_large)
        assert has_begun.wait(60)
        ok(client.post("/v1/studies", json=SPEC), 201)
        (left_out,) = ok(client.get("/v1/datasets"))["left_out"]
        assert (left_out["name"], left_out["reason"][:18]) == ("large", "it is not read yet")
        may_end.set()
        assert ok(waits.result(60), 201)["data_fingerprint"] is not None


@sqlite_only
def test_why_a_folder_is_no_data_set_is_told(
    settings: Settings, store: Store, client_of: ClientOf, tmp_path: Path
) -> None:
    write_folder(tmp_path / "sms")
    (tmp_path / "sms" / "train-labels-idx1-ubyte").unlink()
    (tmp_path / "no\nname").mkdir()
    os.mkdir(os.fsencode(tmp_path) + b"/no-\xff-text")
    client = client_of(create_app(settings.model_copy(update={"data_root": tmp_path}), store))
    found = {one["name"]: one["reason"] for one in ok(client.get("/v1/datasets"))["left_out"]}
    assert found["sms"] == "data set sms: the train part has no file of labels"
    assert set(found) == {"sms", "no\ufffdname", "no-\ufffd-text"}

    def refusal(dataset: str) -> str:
        spec = {**SPEC, "task": {"name": "mlp", "dataset": dataset}}
        return str(fields(client.post("/v1/studies", json=spec))["task.dataset"])

    assert refusal("sms").endswith(
        "known: breast-cancer, diabetes, digits, wine; a folder of that name is left out: "
        + found["sms"]
    )
    assert refusal("spam").endswith("folders of a worker's --data-root (RIDGELINE_DATA_ROOT)")
