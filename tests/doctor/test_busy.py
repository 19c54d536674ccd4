"""The doctor looks at a database while the service changes it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ridgeline.service import doctor, studies, trials
from ridgeline.service.artifacts.folder import FolderArtifacts
from ridgeline.service.external_protocol import SuggestRequest
from ridgeline.service.findings import Finding
from ridgeline.service.store.session import Store
from tests.doctor.conftest import train
from tests.service.factory import SETTINGS, FakeWorker, external, post, spec


def found_by_the_doctor(store: Store, folder: Path) -> list[Finding]:
    found = doctor.examine(store, FolderArtifacts(folder), SETTINGS)
    return [one for one in found if one.check != "folders"]


def test_what_changes_meanwhile_gives_no_alarm(store: Store, tmp_path: Path) -> None:
    budget = {"trials": 40, "epochs": 3}
    for name in ("first", "second"):
        post(store, spec(name, replicates=2, budget=budget))
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(train, store, FakeWorker(store, num_slots=4)) for _ in range(2)]
        num_looks = 0
        while num_looks < 3 or not all(one.done() for one in both):
            assert found_by_the_doctor(store, tmp_path) == []
            num_looks += 1
        for one in both:
            one.result()


def test_a_study_that_is_being_wound_up_gives_no_alarm(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What one transaction leaves open of a large study, the next ones cancel."""
    monkeypatch.setattr("ridgeline.service.ledger.MAX_CANCELLED", 5)
    post(store, external("large", budget={"trials": 12}))
    with store.transaction() as tx:
        trials.enqueue(tx, "large", [{"x": number / 100} for number in range(12)])
    trials.suggest(store, "large", SuggestRequest(count=8))
    with store.transaction() as tx:
        assert studies.apply_verb(tx, "large", "cancel").trials.running > 0
    assert found_by_the_doctor(store, tmp_path) == []
