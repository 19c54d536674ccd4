"""Whoever may start runs is told once there are some, and nobody else is."""

from __future__ import annotations

from collections.abc import Set

import pytest

from ridgeline.service import extending, reporting, studies, trials, workers
from ridgeline.service.external_protocol import (
    CompleteRequest,
    ReportRequest,
    SuggestedTrial,
    SuggestRequest,
    TrialReports,
)
from ridgeline.service.pruning import NO_RULES
from ridgeline.service.resources import ExtendRequest
from ridgeline.service.store.session import Audience, Store
from tests.conftest import ManualClock
from tests.service.factory import SETTINGS, FakeWorker, ended, external, post, spec


class Told:
    """Who was told since it was last asked."""

    def __init__(self, store: Store) -> None:
        self._audiences: list[Audience] = []
        store.tell_of_offers(self._hear)

    def _hear(self, audiences: Set[Audience]) -> None:
        self._audiences += audiences

    def take(self) -> list[Audience]:
        heard, self._audiences = self._audiences, []
        return heard


WORKERS = [None]


@pytest.fixture
def told(store: Store) -> Told:
    return Told(store)


def suggest(store: Store, **values: object) -> SuggestedTrial:
    (trial,) = trials.suggest(store, "s", SuggestRequest.model_validate(values)).trials
    return trial


def report(store: Store, trial: SuggestedTrial) -> None:
    with store.transaction() as tx:
        request = ReportRequest(attempt=trial.attempt, epoch=1, metrics={"score": 1.0})
        reporting.report(tx, "s", trial.number, request)


def test_external_reports_tell_nobody(store: Store, told: Told) -> None:
    post(store, external())
    assert told.take() == ["s"]
    trial = suggest(store)
    report(store, trial)
    assert told.take() == []


def test_the_end_of_an_external_trial_tells_programs_that_wait_for_one(
    store: Store, told: Told
) -> None:
    post(store, external())
    first, second = suggest(store), suggest(store)
    told.take()
    with store.transaction() as tx:
        request = CompleteRequest(attempt=first.attempt, value=0.5)
        reporting.complete(tx, "s", first.number, request, max_charges=3)
    assert told.take() == ["s"]
    end = {"state": "COMPLETE", "value": 0.5}
    both = {"trials": [{"number": second.number, "attempt": second.attempt, "end": end}]}
    request_all = TrialReports.model_validate(both)
    reporting.report_all(store, "s", request_all, rules=NO_RULES, max_charges=3)
    assert told.take() == ["s"]


def test_the_end_of_an_external_study_is_told(store: Store, told: Told) -> None:
    post(store, external())
    suggest(store)
    told.take()
    with store.transaction() as tx:
        studies.apply_verb(tx, "s", "cancel")
    assert told.take() == ["s"]


def test_runs_that_lost_their_holder_are_told(store: Store, told: Told, clock: ManualClock) -> None:
    post(store, external("s"))
    post(store, spec("w"))
    suggest(store, lease_seconds=10)
    FakeWorker(store).sync()
    told.take()
    clock.advance(11)
    workers.expire(store)
    assert told.take() == ["s"]
    clock.advance(SETTINGS.lease_seconds)
    workers.expire(store)
    assert told.take() == WORKERS


@pytest.mark.parametrize("outcome", ["released", "crashed", "out_of_memory", "timeout"])
def test_runs_that_workers_hand_back_are_told(store: Store, told: Told, outcome: str) -> None:
    post(store, spec())
    worker = FakeWorker(store)
    (order,) = worker.sync().start
    told.take()
    worker.sync(ended=[ended(order, outcome)], free_slots={})
    assert told.take() == WORKERS


def test_runs_of_a_worker_that_leaves_are_told(store: Store, told: Told) -> None:
    post(store, spec())
    worker = FakeWorker(store)
    worker.sync()
    told.take()
    worker.sync(leaving=True)
    assert told.take() == WORKERS


def test_runs_that_go_to_whoever_made_them_are_not_told(store: Store, told: Told) -> None:
    post(store, spec())
    worker = FakeWorker(store, num_slots=2)
    told.take()
    worker.sync()
    worker.end_all()
    assert told.take() == []


def test_runs_of_a_trial_that_its_maker_has_no_room_for_are_told(store: Store, told: Told) -> None:
    post(store, spec(replicates=3))
    worker = FakeWorker(store)
    told.take()
    worker.sync()
    assert told.take() == WORKERS


def test_what_a_person_does_is_told(store: Store, told: Told) -> None:
    post(store, spec(budget={"trials": 2}))
    assert told.take() == WORKERS
    with store.transaction() as tx:
        trials.enqueue(tx, "s", [{"learning_rate": 0.01}])
    assert told.take() == WORKERS
    for verb, audiences in (("pause", []), ("resume", WORKERS), ("stop", [])):
        with store.transaction() as tx:
            studies.apply_verb(tx, "s", verb)  # type: ignore[arg-type]
        assert told.take() == audiences, verb
    with store.transaction() as tx:
        extending.extend(tx, "s", ExtendRequest(trials=3), max_open=10)
    assert told.take() == WORKERS


def test_what_is_not_committed_is_not_told(store: Store, told: Told) -> None:
    def create_in_vain() -> None:
        with store.transaction() as tx:
            studies.create(tx, spec(), owner=None, local_datasets=(), max_open=10)
            raise KeyError

    with pytest.raises(KeyError):
        create_in_vain()
    assert told.take() == []
