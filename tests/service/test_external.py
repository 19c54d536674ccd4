"""Programs that train by themselves: suggest, report, complete."""

from __future__ import annotations

import pytest

from service import trials, workers
from service.errors import Conflict, InvalidInput, StaleAttempt
from service.lifecycle import FailReason, StudyState, TrialState
from service.resources import (
    CompleteRequest,
    ReportRequest,
    SuggestedTrial,
    SuggestRequest,
    Trial,
)
from service.store.session import Store
from tests.conftest import ManualClock
from tests.parallel import in_parallel
from tests.service.factory import FakeWorker, external, post, spec, study_of


def suggest(store: Store, count: int = 1, **values: float) -> tuple[SuggestedTrial, ...]:
    return trials.suggest(store, "s", SuggestRequest(count=count, **values)).trials


def report(store: Store, trial: SuggestedTrial, epoch: int, score: float) -> Trial:
    request = ReportRequest(attempt=trial.attempt, epoch=epoch, metrics={"score": score})
    with store.transaction() as tx:
        return trials.report(tx, "s", trial.number, request)


def complete(store: Store, trial: SuggestedTrial, **values: object) -> Trial:
    request = CompleteRequest.model_validate({"attempt": trial.attempt, **values})
    with store.transaction() as tx:
        return trials.complete(tx, "s", trial.number, request, max_charges=2)


def test_the_whole_way(store: Store) -> None:
    post(store, external())
    while handed := suggest(store):
        (trial,) = handed
        report(store, trial, 1, 0.75)
        report(store, trial, 2, 0.25)
        assert complete(store, trial).value == 0.25
    study = study_of(store)
    assert (study.state, study.trials.complete) == (StudyState.COMPLETED, 4)
    with store.reading() as tx:
        epochs = trials.get(tx, "s", 0).epochs
    assert [(e.epoch, e.metrics) for e in epochs] == [(1, {"score": 0.75}), (2, {"score": 0.25})]


def test_several_at_once_equal_one_at_a_time(store: Store) -> None:
    post(store, external("s"))
    together = [trial.config for trial in suggest(store, 4)]
    post(store, external("t"))
    single = [trials.suggest(store, "t", SuggestRequest()).trials[0].config for _ in range(4)]
    assert together == single


def test_the_answer_says_why_there_are_fewer(store: Store) -> None:
    post(store, external(budget={"trials": 4, "max_parallel": 2}))
    answer = trials.suggest(store, "s", SuggestRequest(count=3))
    assert len(answer.trials) == 2
    assert "max_parallel is 2" in str(answer.reason)


def test_enqueued_trials_come_first(store: Store) -> None:
    post(store, external())
    with store.transaction() as tx:
        trials.enqueue(tx, "s", [{"x": 1}])
    first, second = suggest(store, 2)
    assert first.config == {"x": 1.0}
    assert (first.number, second.number) == (0, 1)


def test_enqueue_refuses_what_is_not_of_the_space(store: Store) -> None:
    post(store, external())
    with store.transaction() as tx, pytest.raises(InvalidInput) as caught:
        trials.enqueue(tx, "s", [{"x": 0.5}, {"x": 2.0, "y": 1}])
    assert [field for field, _ in caught.value.problems] == ["configs.1.y", "configs.1.x"]


def test_enqueue_keeps_to_the_budget(store: Store) -> None:
    post(store, external())
    with store.transaction() as tx, pytest.raises(Conflict, match="room for 4"):
        trials.enqueue(tx, "s", [{"x": 0.5}] * 5)


def test_a_reproducible_study_takes_them_only_at_first(store: Store) -> None:
    post(store, external(reproducible=True))
    with store.transaction() as tx:
        trials.enqueue(tx, "s", [{"x": 0.5}])
    suggest(store, 2)
    with store.transaction() as tx, pytest.raises(Conflict, match="reproducible"):
        trials.enqueue(tx, "s", [{"x": 0.5}])


def test_workers_and_programs_keep_apart(store: Store) -> None:
    post(store, spec())
    with pytest.raises(Conflict, match="trained by workers"):
        suggest(store)
    post(store, external("e"))
    assert all(order.study == "s" for order in FakeWorker(store, num_slots=9).sync().start)


def test_a_silent_program_loses_its_trial(store: Store, clock: ManualClock) -> None:
    post(store, external())
    (late,) = suggest(store, lease_seconds=10)
    clock.advance(9)
    report(store, late, 1, 0.5)
    clock.advance(9)
    assert workers.expire(store) == 0
    clock.advance(2)
    assert workers.expire(store) == 1
    (again,) = suggest(store)
    assert (again.number, again.attempt, again.config) == (late.number, 2, late.config)
    with pytest.raises(StaleAttempt, match="not the current one"):
        report(store, late, 2, 0.5)
    with pytest.raises(StaleAttempt):
        complete(store, late, value=0.5)
    assert complete(store, again, value=0.25).value == 0.25


def test_the_same_end_twice_changes_nothing(store: Store) -> None:
    post(store, external())
    (trial,) = suggest(store)
    first = complete(store, trial, value=0.5)
    assert complete(store, trial, value=0.5) == first
    with pytest.raises(StaleAttempt, match="COMPLETE already"):
        complete(store, trial, value=0.75)
    with pytest.raises(StaleAttempt, match="no more reports"):
        report(store, trial, 1, 0.5)


def test_an_end_needs_a_value(store: Store) -> None:
    post(store, external())
    (trial,) = suggest(store)
    with pytest.raises(InvalidInput, match="no epoch has reported score"):
        complete(store, trial)
    with pytest.raises(InvalidInput, match="failed trial has no value"):
        complete(store, trial, state="FAIL", value=1.0)
    with pytest.raises(InvalidInput, match="only for trials that FAIL"):
        complete(store, trial, value=1.0, reason="crashed")


def test_a_pruned_trial_may_have_a_value(store: Store) -> None:
    post(store, external())
    first, second = suggest(store, 2)
    assert complete(store, first, state="PRUNED").value is None
    report(store, second, 1, 0.5)
    pruned = complete(store, second, state="PRUNED")
    assert (pruned.state, pruned.value) == (TrialState.PRUNED, 0.5)


def test_a_crash_is_tried_again_until_max_charges(store: Store) -> None:
    post(store, external(budget={"trials": 1}))
    (trial,) = suggest(store)
    assert complete(store, trial, state="FAIL", error="boom").state is TrialState.RUNNING
    (trial,) = suggest(store)
    ended = complete(store, trial, state="FAIL", error="boom")
    assert (ended.state, ended.reason) == (TrialState.FAIL, FailReason.CRASHED)
    assert study_of(store).state is StudyState.FAILED


def test_divergence_is_final(store: Store) -> None:
    post(store, external())
    (trial,) = suggest(store)
    ended = complete(store, trial, state="FAIL", reason="diverged")
    assert (ended.state, ended.reason) == (TrialState.FAIL, FailReason.DIVERGED)


def test_programs_in_parallel_never_share_a_trial(store: Store) -> None:
    post(store, external(budget={"trials": 24}))
    handed: list[SuggestedTrial] = []

    def take() -> None:
        while found := suggest(store, 2):
            handed.extend(found)

    in_parallel(4, take)
    assert sorted(trial.number for trial in handed) == list(range(24))
