"""Programs that train by themselves: suggest, report, complete."""

from __future__ import annotations

from typing import Any

import pytest

from ridgeline.service import reporting, studies, trials, workers
from ridgeline.service.errors import Conflict, InvalidInput, StaleAttempt
from ridgeline.service.external_protocol import (
    CompleteRequest,
    ReportOutcome,
    ReportRequest,
    SuggestedTrial,
    SuggestRequest,
    SuggestResponse,
    TrialReports,
)
from ridgeline.service.lifecycle import FailReason, StudyState, TrialState
from ridgeline.service.pruning import NO_RULES
from ridgeline.service.resources import Trial
from ridgeline.service.store.session import Store
from tests.conftest import ManualClock
from tests.parallel import in_parallel
from tests.service.factory import Counted, FakeWorker, external, post, spec, study_of


def suggest(store: Store, count: int = 1, **values: Any) -> tuple[SuggestedTrial, ...]:
    return trials.suggest(store, "s", SuggestRequest(count=count, **values)).trials


def report(store: Store, trial: SuggestedTrial, epoch: int, score: float) -> Trial:
    request = ReportRequest(attempt=trial.attempt, epoch=epoch, metrics={"score": score})
    with store.transaction() as tx:
        return reporting.report(tx, "s", trial.number, request)


def complete(store: Store, trial: SuggestedTrial, **values: object) -> Trial:
    request = CompleteRequest.model_validate({"attempt": trial.attempt, **values})
    with store.transaction() as tx:
        return reporting.complete(tx, "s", trial.number, request, max_charges=2)


def tell(store: Store, *reports: dict[str, object]) -> tuple[ReportOutcome, ...]:
    """Report on several trials in one call."""
    request = TrialReports.model_validate({"trials": reports})
    return reporting.report_all(store, "s", request, rules=NO_RULES, max_charges=2).trials


def tell_study(store: Store, verb: studies.Verb) -> None:
    with store.transaction() as tx:
        studies.apply_verb(tx, "s", verb)


def of(trial: SuggestedTrial, *scores: float, **values: object) -> dict[str, object]:
    """A report on a trial, with the scores of its first epochs."""
    epochs = [{"epoch": n, "metrics": {"score": score}} for n, score in enumerate(scores, start=1)]
    return {"number": trial.number, "attempt": trial.attempt, "epochs": epochs, **values}


def epochs_of(store: Store, number: int) -> dict[int, float]:
    with store.reading() as tx:
        epochs = trials.get(tx, "s", number).epochs
    return {report.epoch: report.metrics["score"] for report in epochs}


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


def test_metrics_have_any_name(store: Store) -> None:
    metric = "val/loss[ema] λ'\""
    post(store, external(objective={"metric": metric, "direction": "minimize"}))
    for value in (0.9, 0.1):
        (trial,) = suggest(store)
        end = {"epochs": [{"epoch": 1, "metrics": {metric: value}}]}
        assert complete(store, trial, **end).value == value
    study = study_of(store)
    assert study.best is not None
    assert (study.best.value, study.projection_error) == (0.1, None)


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


def test_a_client_gets_its_open_trials_again(store: Store, clock: ManualClock) -> None:
    post(store, external())
    (first,) = suggest(store, client_id="a", lease_seconds=10)
    report(store, first, 1, 0.5)
    clock.advance(9)
    assert suggest(store, client_id="a", lease_seconds=20) == (
        first.model_copy(update={"lease_seconds": 20}),
    )
    assert epochs_of(store, 0) == {1: 0.5}
    clock.advance(19)
    assert workers.expire(store) == 0
    (other,) = suggest(store, client_id="b")
    assert other.number == 1
    again, new = suggest(store, 2, client_id="a", lease_seconds=20)
    assert (again.number, again.attempt, new.number) == (0, 1, 2)
    complete(store, first)
    assert [trial.number for trial in suggest(store, 2, client_id="a")] == [2, 3]


def test_a_paused_study_gives_a_client_what_it_has_and_nothing_new(store: Store) -> None:
    post(store, external())
    (first,) = suggest(store, client_id="a")
    tell_study(store, "pause")
    assert suggest(store, 2, client_id="a") == (first,)
    assert suggest(store, client_id="b") == ()
    tell_study(store, "cancel")
    assert suggest(store, client_id="a") == ()


def test_a_client_that_falls_silent_loses_its_trial(store: Store, clock: ManualClock) -> None:
    post(store, external())
    suggest(store, client_id="a", lease_seconds=10)
    clock.advance(11)
    assert workers.expire(store) == 1
    (again,) = suggest(store, client_id="b")
    assert (again.number, again.attempt) == (0, 2)
    assert [trial.number for trial in suggest(store, client_id="a")] == [1]


def test_an_answer_without_trials_is_not_remembered(store: Store) -> None:
    post(store, external(budget={"trials": 4, "max_parallel": 1}))
    suggest(store)
    remembered: list[SuggestResponse] = []
    answer = trials.suggest(
        store, "s", SuggestRequest(), remember=lambda _tx, answer: remembered.append(answer)
    )
    assert (answer.trials, remembered) == ((), [])


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


def test_a_trial_costs_the_time_its_program_has_it(store: Store, clock: ManualClock) -> None:
    post(store, external())
    done, failed, retried = suggest(store, 3)
    clock.advance(7)
    report(store, done, 1, 0.5)
    clock.advance(3)
    assert complete(store, done).runs[0].device_seconds == 10
    assert complete(store, failed, state="FAIL", reason="diverged").runs[0].device_seconds == 10
    complete(store, retried, state="FAIL")
    (again,) = suggest(store)
    clock.advance(2)
    assert (again.number, again.attempt) == (retried.number, 2)
    assert complete(store, again, value=0.5).runs[0].device_seconds == 12
    assert study_of(store).device_seconds == 32


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


def test_several_epochs_and_ends_in_one_call(store: Store) -> None:
    post(store, external())
    one, two, three = suggest(store, 3)
    told = tell(store, of(two, 0.5, 0.25, end={}), of(one, 0.75), of(three, end={"state": "FAIL"}))
    assert [outcome.number for outcome in told] == [1, 0, 2]
    assert [outcome.state for outcome in told] == ["COMPLETE", "RUNNING", "RUNNING"]
    assert [outcome.value for outcome in told] == [0.25, None, None]
    assert epochs_of(store, 1) == {1: 0.5, 2: 0.25}
    assert epochs_of(store, 0) == {1: 0.75}
    assert suggest(store)[0].number == 2  # it crashed, and is tried again


def test_a_call_may_be_repeated(store: Store, clock: ManualClock) -> None:
    post(store, external())
    one, two, three = suggest(store, 3)
    reports = (
        of(one, 0.75),
        of(two, 0.5, 0.25, end={"metrics": {"test": 1.0}}),
        of(three, end={"state": "FAIL"}),
    )
    first = tell(store, *reports)
    before = study_of(store)
    with store.reading() as tx:
        trial = trials.get(tx, "s", 1)
    clock.advance(1)
    again = tell(store, *reports)
    assert [outcome.error for outcome in again] == [None] * 3
    assert [outcome.value for outcome in again] == [outcome.value for outcome in first]
    assert study_of(store) == before
    with store.reading() as tx:
        assert trials.get(tx, "s", 1) == trial


def test_a_failure_after_the_lease_is_stale(store: Store, clock: ManualClock) -> None:
    post(store, external())
    (trial,) = suggest(store, lease_seconds=10)
    clock.advance(11)
    workers.expire(store)
    for reason in ("crashed", "diverged"):
        (told,) = tell(store, of(trial, end={"state": "FAIL", "reason": reason}))
        assert told.error is not None
        assert told.error.status == 409


def test_one_stale_trial_loses_no_other_result(store: Store, clock: ManualClock) -> None:
    post(store, external())
    (late,) = suggest(store, lease_seconds=10)
    clock.advance(11)
    workers.expire(store)
    (again, other) = suggest(store, 2)
    assert again.number == late.number
    stale, taken, missing = tell(
        store,
        of(late, 0.5, end={}),
        of(other, 0.25, end={}),
        {"number": 99, "attempt": 1},
    )
    assert (taken.state, taken.value) == (TrialState.COMPLETE, 0.25)
    assert stale.error is not None
    assert (stale.state, stale.error.status) == (None, 409)
    assert stale.error.type == "urn:ridgeline:stale-attempt"
    assert missing.error is not None
    assert missing.error.status == 404
    assert epochs_of(store, late.number) == {}
    assert complete(store, again, value=1.0).value == 1.0


def test_a_refused_end_takes_no_epochs(store: Store) -> None:
    post(store, external())
    (trial,) = suggest(store)
    (told,) = tell(store, of(trial, 0.5, end={"state": "FAIL", "value": 1.0}))
    assert told.error is not None
    assert told.error.errors[0].field == "trials.0.end.value"
    assert epochs_of(store, 0) == {}


def test_every_report_renews_the_lease(store: Store, clock: ManualClock) -> None:
    post(store, external())
    one, two, silent = suggest(store, 3, lease_seconds=10)
    clock.advance(9)
    tell(store, of(one, 0.5), of(two))
    clock.advance(9)
    assert workers.expire(store) == 1
    assert suggest(store)[0].number == silent.number
    assert complete(store, two, value=1.0).value == 1.0


def test_the_last_epoch_gives_the_value_in_whatever_order_they_come(store: Store) -> None:
    post(store, external())
    one, two, three, four = suggest(store, 4)
    report(store, one, 5, 0.5)
    assert complete(store, one, epochs=of(one, 1.0, 2.0)["epochs"]).value == 0.5
    report(store, two, 2, 0.5)
    assert complete(store, two, epochs=of(two, 1.0, 2.0, 3.0)["epochs"]).value == 3.0
    report(store, three, 2, 0.5)
    assert complete(store, three, epochs=of(three, 1.0, 2.0)["epochs"]).value == 0.5
    epochs = [
        {"epoch": 1, "metrics": {"score": 0.25}},
        {"epoch": 2, "metrics": {"loss": 7.0}},
        {"epoch": 1, "metrics": {"score": 9.0}},
    ]
    assert complete(store, four, epochs=epochs).value == 0.25


def test_a_trial_is_reported_on_once_a_call(store: Store) -> None:
    post(store, external())
    (trial,) = suggest(store)
    with pytest.raises(InvalidInput, match=r"trials\.1\.number: trial 0 is given twice"):
        tell(store, of(trial, 0.5), of(trial, end={}))
    post(store, spec("w"))
    request = TrialReports.model_validate({"trials": [of(trial)]})
    with pytest.raises(Conflict, match="trained by workers"):
        reporting.report_all(store, "w", request, rules=NO_RULES, max_charges=2)


def test_a_large_call_is_taken_in_several_transactions(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_news(monkeypatch, 4)
    post(store, external())
    one, two, three = suggest(store, 3)
    counted = Counted(store, monkeypatch)
    calls = (of(one, 0.5, 0.4, end={}), of(two, *[0.5] * 9), of(three, end={"value": 0.1}))
    told = tell(store, *calls)
    assert counted.number == 4
    assert [outcome.state for outcome in told] == ["COMPLETE", "RUNNING", "COMPLETE"]
    assert tell(store, *calls) == told
    assert (epochs_of(store, 0), len(epochs_of(store, 1))) == ({1: 0.5, 2: 0.4}, 9)


def limit_news(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Have one transaction take so many at most."""
    for module in ("ledger", "reporting"):
        monkeypatch.setattr(f"ridgeline.service.{module}.MAX_NEWS", number)


def test_a_long_report_is_refused_before_any_of_it_is_taken(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_news(monkeypatch, 4)
    post(store, external())
    one, two = suggest(store, 2)
    told = tell(store, of(one, *[0.5] * 9, end={"reason": "crashed"}), of(two, *[0.5] * 9, end={}))
    assert [outcome.state for outcome in told] == [None, "COMPLETE"]
    assert (len(epochs_of(store, 0)), len(epochs_of(store, 1))) == (0, 9)


def test_long_reports_on_one_trial_are_taken_in_several_transactions(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_news(monkeypatch, 4)
    post(store, external())
    (trial,) = suggest(store)
    counted = Counted(store, monkeypatch)
    request = CompleteRequest.model_validate(
        {"attempt": 1, "epochs": of(trial, *[0.5] * 9)["epochs"]}
    )
    reporting.take_early(store, "s", trial.number, request, max_charges=1)
    assert (counted.number, len(epochs_of(store, 0))) == (2, 8)
    for _ in range(2):
        reporting.take_early(store, "s", trial.number, request, max_charges=1)
        with store.transaction() as tx:
            assert reporting.complete(tx, "s", trial.number, request, max_charges=1).value == 0.5
    assert len(epochs_of(store, 0)) == 9


def test_epochs_of_a_call_are_counted_over_all_trials(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ridgeline.service.reporting.MAX_REPORTS", 3)
    post(store, external())
    one, two = suggest(store, 2)
    tell(store, of(one, 0.5, 0.5), of(two, 0.5))
    with pytest.raises(InvalidInput, match="3 epochs at most in all"):
        tell(store, of(one, 0.5, 0.5), of(two, 0.5, 0.5))
