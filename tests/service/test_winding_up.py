"""Large studies that are cancelled, stopped or fail: wound up in parts, which may be cut off."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from ridgeline.service import reporting, studies, trials, workers
from ridgeline.service.errors import NotFound, StaleAttempt, Unavailable
from ridgeline.service.external_protocol import CompleteRequest, SuggestedTrial, SuggestRequest
from ridgeline.service.lifecycle import FailReason, StudyState, TrialState
from ridgeline.service.store.session import Store
from tests.service.factory import (
    FakeWorker,
    cut_off_after,
    ended,
    external,
    post,
    spec,
    study_of,
)

NUM_TRIALS = 12

pytestmark = pytest.mark.usefixtures("small_parts")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have one transaction cancel five runs."""
    monkeypatch.setattr("ridgeline.service.ledger.MAX_CANCELLED", 5)


def large_study(store: Store, *, num_running: int) -> list[SuggestedTrial]:
    """A study of which some trials run, and all others wait."""
    post(store, external(budget={"trials": NUM_TRIALS}))
    with store.transaction() as tx:
        trials.enqueue(tx, "s", [{"x": number / 100} for number in range(NUM_TRIALS)])
    return list(trials.suggest(store, "s", SuggestRequest(count=num_running)).trials)


def perform(store: Store, verb: studies.Verb) -> StudyState:
    return studies.perform_verb(store, "s", verb, remember=lambda tx, study: None).state


def cut_off(store: Store, verb: studies.Verb, num_parts: int) -> None:
    with cut_off_after(store, num_parts), pytest.raises(Unavailable):
        perform(store, verb)


def complete(store: Store, trial: SuggestedTrial) -> None:
    request = CompleteRequest(attempt=trial.attempt, value=0.5)
    with store.transaction() as tx:
        reporting.complete(tx, "s", trial.number, request, max_charges=3)


def states(store: Store) -> Counter[tuple[TrialState, FailReason | None]]:
    with store.reading() as tx:
        found, _ = trials.list_page(tx, "s", page_size=1_000, cursor=None, state=None)
    return Counter((trial.state, trial.reason) for trial in found)


def projected(store: Store) -> tuple[int, int]:
    with store.reading() as tx:
        row = studies.find(tx, "s")
    return row.projected_revision, row.revision


CANCELLED = (TrialState.FAIL, FailReason.CANCELLED)


def test_every_trial_of_a_large_study_is_cancelled(store: Store) -> None:
    large_study(store, num_running=3)
    assert perform(store, "cancel") is StudyState.CANCELLED
    assert states(store) == {CANCELLED: NUM_TRIALS}
    revision, projected_revision = projected(store)
    assert revision == projected_revision


def test_the_answer_is_remembered_in_the_last_transaction(store: Store) -> None:
    large_study(store, num_running=3)
    remembered = []
    studies.perform_verb(
        store, "s", "cancel", remember=lambda tx, study: remembered.append(study.trials)
    )
    (counts,) = remembered
    assert (counts.fail, counts.waiting, counts.running) == (NUM_TRIALS, 0, 0)


def test_nothing_starts_and_no_result_is_taken_between_the_parts(store: Store) -> None:
    running = large_study(store, num_running=7)  # the first part cancels five of them
    cut_off(store, "cancel", 1)
    study = study_of(store)
    assert study.state is StudyState.CANCELLED
    assert (study.trials.running, study.trials.waiting) == (2, NUM_TRIALS - 7)
    for trial in running:
        with pytest.raises(StaleAttempt, match=r"CANCELLED|FAIL"):
            complete(store, trial)
    assert trials.suggest(store, "s", SuggestRequest(count=5)).trials == ()


@pytest.mark.parametrize("num_parts", range(1, 3))
def test_what_is_cut_off_is_gone_on_with_by_a_repetition(store: Store, num_parts: int) -> None:
    large_study(store, num_running=2)
    cut_off(store, "cancel", num_parts)
    assert states(store)[CANCELLED] == 5 * num_parts
    assert perform(store, "cancel") is StudyState.CANCELLED
    assert states(store) == {CANCELLED: NUM_TRIALS}


@pytest.mark.parametrize("verb", ["cancel", "stop"])
def test_what_is_cut_off_is_gone_on_with_by_maintenance(store: Store, verb: studies.Verb) -> None:
    running = large_study(store, num_running=1 if verb == "stop" else 3)
    cut_off(store, verb, 1)
    workers.expire(store)
    if verb == "stop":
        assert states(store) == {CANCELLED: NUM_TRIALS - 1, (TrialState.RUNNING, None): 1}
        complete(store, running[0])
        assert study_of(store).state is StudyState.COMPLETED
    else:
        assert states(store) == {CANCELLED: NUM_TRIALS}
    with store.reading() as tx:
        assert tx.studies.to_wind_up() == []


def test_nothing_that_waits_starts_in_a_study_that_is_to_stop(store: Store) -> None:
    large_study(store, num_running=1)
    cut_off(store, "stop", 1)
    assert study_of(store).trials.waiting == NUM_TRIALS - 1 - 5
    assert trials.suggest(store, "s", SuggestRequest(count=5)).trials == ()
    assert perform(store, "stop") is StudyState.RUNNING
    assert states(store) == {CANCELLED: NUM_TRIALS - 1, (TrialState.RUNNING, None): 1}


def test_the_trials_of_a_stopped_study_have_several_runs(store: Store) -> None:
    post(store, spec(budget={"trials": NUM_TRIALS}, replicates=3))
    with store.transaction() as tx:
        trials.enqueue(tx, "s", [{"learning_rate": 0.01}] * NUM_TRIALS)
    assert perform(store, "stop") is StudyState.COMPLETED
    assert states(store) == {CANCELLED: NUM_TRIALS}


def test_a_study_that_can_never_train_is_wound_up_in_parts(store: Store) -> None:
    post(store, spec(budget={"trials": NUM_TRIALS}))
    worker = FakeWorker(store, num_slots=NUM_TRIALS)
    first, *others = worker.sync().start
    worker.sync(ended=[ended(first, "never_trains", error="a class of one row")])
    study = study_of(store)
    assert study.state is StudyState.FAILED
    assert study.trials.running == NUM_TRIALS - 1 - 5
    refused = worker.sync(ended=[ended(order) for order in others]).refused
    assert [refusal.reason for refusal in refused] == ["the study is FAILED"] * (NUM_TRIALS - 6)
    workers.expire(store)
    assert states(store) == {CANCELLED: NUM_TRIALS - 1, (TrialState.FAIL, FailReason.CRASHED): 1}


def test_a_study_out_of_time_is_wound_up_in_parts(store: Store) -> None:
    large_study(store, num_running=1)
    with store.transaction() as tx:
        row = tx.studies.lock(studies.find(tx, "s").id)
        row.deadline_at = tx.now
    workers.expire(store)
    assert states(store) == {CANCELLED: NUM_TRIALS - 1, (TrialState.RUNNING, None): 1}


def test_a_study_may_be_deleted_between_the_parts(store: Store) -> None:
    large_study(store, num_running=3)
    cut_off(store, "cancel", 1)
    with store.reading() as tx:
        study_ids = tx.studies.to_wind_up()
    assert len(study_ids) == 1
    with store.transaction() as tx:
        studies.delete(tx, "s")
    studies.wind_up_all(store)
    with store.reading() as tx, pytest.raises(NotFound):
        studies.get(tx, "s")


_KILLED_BETWEEN = """
import os, signal, sys
from ridgeline.service import ledger, projection, studies
from ridgeline.service.store.session import DatabaseClock, Store

ledger.MAX_CANCELLED = 5
wind_up = ledger.Ledger.wind_up
num_calls = 0

def dying(self):
    global num_calls
    num_calls += 1
    done = wind_up(self)
    if num_calls == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

ledger.Ledger.wind_up = dying
store = Store(sys.argv[1], clock=DatabaseClock(), project=projection.project)
studies.perform_verb(store, "s", "cancel", remember=lambda tx, study: None)
"""


@pytest.mark.slow
def test_what_a_killed_api_left_is_gone_on_with(store: Store) -> None:
    large_study(store, num_running=3)
    url = store.url.render_as_string(hide_password=False)
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED_BETWEEN, url], env=dict(os.environ), check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert study_of(store).state is StudyState.CANCELLED
    assert states(store)[CANCELLED] == 5  # the second part was not committed
    workers.expire(store)
    assert states(store) == {CANCELLED: NUM_TRIALS}
