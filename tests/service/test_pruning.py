"""Pruning: rules go out with a version, runs end by them, and the history gives them again."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ridgeline.search.engine.pruning import PruningRules
from ridgeline.search.predicting import Prediction
from ridgeline.search.pruners import Curve, HalvingPruner, MedianPruner, standings
from ridgeline.search.spec import StudySpec
from ridgeline.service import pruning, reporting, studies, trials, workers
from ridgeline.service.external_protocol import (
    CompleteRequest,
    ReportedTrial,
    ReportRequest,
    SuggestedTrial,
    SuggestRequest,
    TrialReports,
)
from ridgeline.service.lifecycle import RunState, StudyState, TrialState
from ridgeline.service.protocol import RunEnded, RunOrder, RunReport, StudyRules
from ridgeline.service.resources import Trial
from ridgeline.service.store.session import Store
from tests.conftest import ManualClock
from tests.service.factory import SETTINGS, FakeWorker, ended, external, post, spec, study_of

HALVING = {"name": "halving", "eta": 2}
MEDIAN = {"name": "median", "startup": 2}
METRIC = "validation_accuracy"


def halving(name: str = "s", **changes: Any) -> StudySpec:
    return spec(name, **{"pruner": HALVING, "budget": {"trials": 20, "epochs": 9}, **changes})


def report(order: RunOrder, epoch: int, value: float) -> RunReport:
    return RunReport(run=order.run, attempt=order.attempt, epoch=epoch, metrics={METRIC: value})


def pruned(order: RunOrder, rules: StudyRules, value: float, epoch: int = 1) -> RunEnded:
    return ended(
        order,
        "pruned",
        value=value,
        kept_epoch=epoch,
        metrics={METRIC: value, "test_accuracy": 0.5},
        rule_version=rules.version,
    )


def rules_of(store: Store, name: str = "s") -> StudyRules | None:
    """Of the one bracket, as another api process tells them, which remembers nothing."""
    store.rules = type(store.rules)()
    return next(iter(pruning.rules_named(store, name).brackets), None)


def trial_of(store: Store, number: int, name: str = "s") -> Trial:
    with store.reading() as tx:
        return trials.get(tx, name, number)


def test_rules_go_out_with_the_reports_they_follow_from(store: Store) -> None:
    post(store, halving())
    worker = FakeWorker(store, num_slots=3)
    first, second, third = worker.sync().start
    assert worker.sync().rules == ()
    (rules,) = worker.sync(reports=[report(first, 1, 0.5), report(second, 1, 0.75)]).rules
    assert (rules.study, rules.metric, rules.direction) == ("s", METRIC, "maximize")
    assert rules.thresholds == {1: 0.75}
    assert rules.version <= study_of(store).revision
    (later,) = worker.sync(reports=[report(third, 1, 0.875), report(second, 2, 0.8)]).rules
    assert later.thresholds == {1: 0.75, 2: 0.8}
    assert later.version > rules.version
    assert rules_of(store) == later


def test_what_a_worker_knows_is_not_sent_again(store: Store) -> None:
    post(store, halving())
    worker = FakeWorker(store, num_slots=3)
    first, *_ = worker.sync().start
    (rules,) = worker.sync(reports=[report(first, 1, 0.5)]).rules
    assert worker.sync(rules={"s": rules.version}).rules == ()
    assert worker.sync(rules={"s": rules.version - 1}).rules == (rules,)
    assert worker.sync().rules == (rules,)


def test_rules_go_to_the_workers_of_the_study_alone(store: Store) -> None:
    post(store, halving("pruned", priority=1, budget={"trials": 2, "epochs": 9}))
    post(store, spec("plain"))
    worker, other = FakeWorker(store, num_slots=2), FakeWorker(store, num_slots=2)
    order, _ = worker.sync().start
    assert len(worker.sync(reports=[report(order, 1, 0.5)]).rules) == 1
    assert other.sync().rules == ()
    assert {held.study for held in other.held.values()} == {"plain"}
    assert worker.sync(rules={"unknown": 7}).rules != ()


def test_a_run_that_is_given_comes_with_its_rules(store: Store) -> None:
    post(store, halving())
    worker = FakeWorker(store, num_slots=1)
    (order,) = worker.sync().start
    worker.sync(reports=[report(order, 1, 0.5)])
    assert FakeWorker(store, num_slots=1).sync().rules[0].thresholds == {1: 0.5}


def test_a_pruned_run(store: Store, clock: ManualClock) -> None:
    post(store, halving())
    worker = FakeWorker(store, num_slots=2)
    good, bad = worker.sync().start
    clock.advance(1)
    (rules,) = worker.sync(reports=[report(good, 1, 0.75)]).rules
    end = pruned(bad, rules, 0.5)
    statement = worker.statement(reports=[report(bad, 1, 0.5)], ended=[end])
    answer = worker.send(statement)
    assert answer.refused == ()
    before = study_of(store)
    assert worker.send(statement).refused == ()
    assert study_of(store) == before
    worker.hear(statement, answer)

    trial = trial_of(store, bad.trial)
    assert (trial.state, trial.reason, trial.value) == (TrialState.PRUNED, None, 0.5)
    (run,) = trial.runs
    assert (run.state, run.value, run.kept_epoch) == (RunState.PRUNED, 0.5, 1)
    assert run.metrics == {METRIC: 0.5, "test_accuracy": 0.5}
    assert run.pruned_by_version == rules.version
    assert run.device_seconds == 1.0
    assert before.trials.pruned == 1
    assert before.device_seconds == 1.0
    with store.reading() as tx:
        assert f",{rules.version}\r\n" in studies.export_csv(tx, "s")
        (event,) = [
            event
            for event in studies.events(tx, "s", after=0, limit=1_000)[0]
            if event.type == "run" and event.data["state"] == "PRUNED"
        ]
    assert event.data["pruned_by_version"] == rules.version


def test_a_pruned_trial_in_optunas_tables(store: Store) -> None:
    post(store, halving())
    worker = FakeWorker(store, num_slots=2)
    good, bad = worker.sync().start
    (rules,) = worker.sync(
        reports=[report(good, 1, 0.75), report(good, 2, 0.5), report(bad, 1, 0.625)]
    ).rules
    worker.sync(reports=[report(bad, 2, 0.25)], ended=[pruned(bad, rules, 0.25, 2), ended(good)])
    storage = optuna.storages.RDBStorage(store.url.render_as_string(hide_password=False))
    try:
        copy = optuna.load_study(study_name="s", storage=storage).trials[bad.trial]
    finally:
        storage.remove_session()
        storage.engine.dispose()
    assert copy.state is optuna.trial.TrialState.PRUNED
    assert copy.value == 0.25
    assert copy.intermediate_values == {1: 0.625, 2: 0.25}
    assert copy.user_attrs["kept_epoch"] == 2
    assert copy.user_attrs["test_accuracy"] == 0.5


def test_a_study_of_pruned_trials_ends_and_the_best_is_a_complete_one(store: Store) -> None:
    post(store, halving(budget={"trials": 4, "epochs": 9}))
    worker = FakeWorker(store, num_slots=4)
    one, *others = worker.sync().start
    (rules,) = worker.sync(reports=[report(one, 1, 0.5)]).rules
    worker.sync(
        reports=[report(order, 1, 0.25) for order in others],
        ended=[ended(one, value=0.125), *(pruned(order, rules, 0.25) for order in others)],
    )
    study = study_of(store)
    assert study.state is StudyState.COMPLETED
    assert (study.trials.complete, study.trials.pruned) == (1, 3)
    assert study.best is not None
    assert study.best.number == one.trial


def test_one_pruned_replicate_prunes_the_trial_and_its_value_is_the_mean(store: Store) -> None:
    post(store, halving(replicates=2, budget={"trials": 2, "epochs": 9}))
    worker = FakeWorker(store, num_slots=2)
    first, second = worker.sync().start
    assert first.trial == second.trial
    (rules,) = worker.sync(reports=[report(first, 1, 0.75)]).rules
    worker.sync(ended=[pruned(second, rules, 0.25)], free_slots={})
    assert trial_of(store, 0).state is TrialState.RUNNING
    worker.sync(ended=[ended(first, value=0.75)], free_slots={})
    trial = trial_of(store, 0)
    assert (trial.state, trial.value) == (TrialState.PRUNED, 0.5)
    assert [run.pruned_by_version for run in trial.runs] == [None, rules.version]


def test_median_counts_complete_runs_alone(store: Store) -> None:
    post(store, halving(pruner=MEDIAN))
    worker = FakeWorker(store, num_slots=4)
    one, two, three, four = worker.sync().start
    reports = [report(order, 1, value) for order, value in ((one, 0.25), (two, 0.5), (three, 1.0))]
    assert worker.sync(reports=reports, free_slots={}).rules == ()
    assert worker.sync(ended=[ended(one)], free_slots={}).rules == ()
    (rules,) = worker.sync(ended=[ended(two)], free_slots={}).rules
    assert rules.thresholds == {1: 0.375}
    assert (
        worker.sync(
            ended=[ended(three, "diverged")], rules={"s": rules.version}, free_slots={}
        ).rules
        == ()
    )
    assert (
        worker.sync(reports=[report(four, 1, 0.0)], rules={"s": rules.version}, free_slots={}).rules
        == ()
    )


def test_under_early_stopping_the_best_so_far_counts(store: Store) -> None:
    for name, stopping in (("keeps", {"patience": 9}), ("ends", None)):
        post(store, halving(name, early_stopping=stopping, priority=len(name)))
        worker = FakeWorker(store, num_slots=1)
        (order,) = worker.sync().start
        values = {1: 0.5, 2: 0.25, 3: 0.375, 4: 0.75}
        (rules,) = worker.sync(reports=[report(order, e, v) for e, v in values.items()]).rules
        expected = {1: 0.5, 2: 0.5, 4: 0.75} if stopping else {1: 0.5, 2: 0.25, 4: 0.75}
        assert rules.thresholds == expected
        with store.transaction() as tx:
            studies.apply_verb(tx, name, "cancel")


def test_a_run_that_starts_again_no_longer_counts(store: Store, clock: ManualClock) -> None:
    post(store, halving())
    worker, other = FakeWorker(store, num_slots=1), FakeWorker(store, num_slots=1)
    (lost,) = worker.sync().start
    worker.sync(reports=[report(lost, 1, 0.75)])
    (order,) = other.sync().start
    (rules,) = other.sync(reports=[report(order, 1, 0.5)]).rules
    assert rules.thresholds == {1: 0.75}
    clock.advance(SETTINGS.lease_seconds - 1)
    other.sync()
    clock.advance(2)
    workers.expire(store)
    (later,) = other.sync(rules={"s": rules.version}).rules
    assert later.version > rules.version
    assert later.thresholds == {1: 0.5}
    assert rules_of(store) == later
    other.sync(ended=[ended(order, "released")], free_slots={})
    (again,) = FakeWorker(store, num_slots=1).sync(rules={"s": later.version}).rules
    assert again.version > later.version
    assert again.thresholds == {}


def test_a_study_without_a_pruner_has_no_rules(store: Store) -> None:
    post(store, spec())
    worker = FakeWorker(store)
    (order,) = worker.sync().start
    assert worker.sync(reports=[report(order, 1, 0.5)], rules={"s": 1}).rules == ()
    assert rules_of(store) is None


def test_tpe_goes_on_after_pruned_trials(store: Store) -> None:
    post(store, halving(sampler={"name": "tpe", "seed": 1}, budget={"trials": 30, "epochs": 9}))
    worker = FakeWorker(store, num_slots=1)
    worker.sync()
    while worker.held:
        (order,) = worker.held.values()
        value = float(order.config["learning_rate"])
        answer = worker.sync(reports=[report(order, 1, value)])
        rules = answer.rules[0]
        is_bad = PruningRules(
            rules.version, rules.metric, rules.direction, rules.thresholds
        ).prunes(1, value)
        worker.sync(ended=[pruned(order, rules, value) if is_bad else ended(order, value=value)])
    study = study_of(store)
    assert study.state is StudyState.COMPLETED
    assert study.trials.pruned > 5
    assert study.trials.pruned + study.trials.complete == 30


# ---- programs of one's own


def suggest(store: Store, count: int = 1) -> tuple[SuggestedTrial, ...]:
    return trials.suggest(store, "s", SuggestRequest(count=count)).trials


def tell(store: Store, trial: SuggestedTrial, epoch: int, **metrics: float) -> ReportedTrial:
    request = ReportRequest(attempt=trial.attempt, epoch=epoch, metrics=metrics)
    rules = pruning.rules_named(store, "s")
    with store.transaction() as tx:
        return reporting.report(tx, "s", trial.number, request, rules=rules)


def test_a_program_is_told_to_prune(store: Store) -> None:
    post(store, external(pruner=HALVING, budget={"trials": 9}))
    one, two, three, four = suggest(store, 4)
    assert not tell(store, one, 1, score=2.0).should_prune
    assert not tell(store, two, 1, score=2.0).should_prune  # an equal one goes on
    assert tell(store, three, 1, score=3.0).should_prune
    assert not tell(store, four, 1, score=1.0).should_prune
    assert not tell(store, four, 3, score=9.0).should_prune  # no rung
    assert not tell(store, two, 2, other=9.0).should_prune
    end = CompleteRequest(attempt=three.attempt, state="PRUNED")
    with store.transaction() as tx:
        trial = reporting.complete(tx, "s", three.number, end, max_charges=1)
    assert (trial.state, trial.value) == (TrialState.PRUNED, 3.0)
    assert trial.runs[0].pruned_by_version is None


def test_of_several_epochs_each_may_prune(store: Store) -> None:
    post(store, external(pruner=HALVING, budget={"trials": 9}))
    one, two, three, ended = suggest(store, 4)
    tell(store, one, 1, score=2.0)
    tell(store, two, 1, score=2.0)

    def epochs(*scores: float) -> list[dict[str, object]]:
        return [{"epoch": n, "metrics": {"score": score}} for n, score in enumerate(scores, 1)]

    request = ReportRequest.model_validate({"attempt": 1, "epochs": epochs(3.0, 1.0)})
    rules = pruning.rules_named(store, "s")
    with store.transaction() as tx:
        assert reporting.report(tx, "s", three.number, request, rules=rules).should_prune
    reports = TrialReports.model_validate(
        {
            "trials": [
                {"number": three.number, "attempt": 1, "epochs": epochs(3.0, 1.0)},
                {"number": two.number, "attempt": 1, "epochs": epochs(2.0, 9.0)},
                {"number": ended.number, "attempt": 1, "epochs": epochs(9.0), "end": {}},
            ]
        }
    )
    told = reporting.report_all(store, "s", reports, rules=rules, max_charges=1)
    assert [outcome.should_prune for outcome in told.trials] == [True, False, False]


def test_a_program_is_told_nothing_without_a_pruner(store: Store) -> None:
    post(store, external())
    one, two = suggest(store, 2)
    assert not tell(store, one, 1, score=1.0).should_prune
    assert not tell(store, two, 1, score=9.0).should_prune


# ---- brackets and predictions


def test_trials_of_a_bracket_are_compared_among_themselves(store: Store) -> None:
    """Two brackets take turns where eta is 2; their lowest rungs are 1 and 2."""
    pruner = {"name": "hyperband", "eta": 2, "brackets": 2}
    post(store, halving(pruner=pruner))
    worker = FakeWorker(store, num_slots=6)
    orders = worker.sync().start
    assert [order.bracket for order in orders] == [0, 1, 0, 1, 0, 1]
    reports = [report(order, 1, order.trial / 8) for order in orders]
    rules = worker.sync(reports=reports).rules
    assert [(its.bracket, its.thresholds) for its in rules] == [(0, {1: 0.25}), (1, {})]
    reports = [report(order, 2, order.trial / 8) for order in orders if order.bracket == 1]
    rules = worker.sync(reports=reports, rules={"s": rules[0].version}).rules
    assert [its.thresholds for its in rules] == [{1: 0.25}, {2: 0.375}]
    assert len({its.version for its in rules}) == 1
    assert worker.sync(rules={"s": rules[0].version}).rules == ()


def test_runs_are_told_by_what_they_are_predicted_to_end_with(store: Store) -> None:
    post(store, halving(pruner={"name": "curve", "eta": 2}, budget={"trials": 9, "epochs": 8}))
    worker = FakeWorker(store, num_slots=2)
    slow, fast = worker.sync().start
    reports = [report(slow, 1, 0.25), report(slow, 2, 0.5)]
    reports += [report(fast, 1, 0.5), report(fast, 2, 0.5)]
    (rules,) = worker.sync(reports=reports).rules
    # From epoch 2 to 8 there are two doublings: 1/2 + 1/4 of what epoch 2 has gained.
    assert rules.predictions == {2: Prediction(since=1, weight=0.75)}
    assert rules.thresholds == {2: 0.5 + 0.75 * 0.25}


def test_a_program_is_told_to_prune_by_what_its_trial_has_gained(store: Store) -> None:
    curve = {"name": "curve", "eta": 2}
    post(store, external(pruner=curve, budget={"trials": 9}))
    one, two, three, long = suggest(store, 4)
    for epoch in range(1, 9):
        tell(store, long, epoch, score=9.0)
    tell(store, one, 1, score=4.0)
    assert not tell(store, one, 2, score=3.0).should_prune
    tell(store, two, 1, score=3.0)
    assert tell(store, two, 2, score=3.0).should_prune  # the other still gets better
    tell(store, three, 1, score=8.0)
    assert not tell(store, three, 2, score=3.0).should_prune


# ---- the rules are those of the history, however it came about

MOVES = st.lists(
    st.tuples(
        st.sampled_from(["report", "report", "report", "complete", "prune", "crash", "look"]),
        st.integers(0, 5),
        st.integers(-8, 8).map(float),
    ),
    max_size=40,
)


@pytest.mark.parametrize("pruner", [HALVING, MEDIAN], ids=["halving", "median"])
@pytest.mark.parametrize("keeps_best", [False, True])
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(moves=MOVES)
def test_rules_are_those_of_the_history(
    store: Store, pruner: dict[str, Any], keeps_best: bool, moves: list[tuple[str, int, float]]
) -> None:
    name = f"s{study_count(store)}"
    stopping = {"patience": 50} if keeps_best else None
    post(store, halving(name, pruner=pruner, early_stopping=stopping))
    worker = FakeWorker(store, num_slots=4)
    worker.sync()
    epochs: dict[tuple[int, int], int] = {}
    versions: dict[int, dict[int, float]] = {}
    for kind, index, value in moves:
        order = list(worker.held.values())[index % len(worker.held)]
        key = order.run, order.attempt
        parts: dict[str, Any] = {}
        match kind:
            case "report":
                epochs[key] = epochs.get(key, 0) + 1
                parts["reports"] = [report(order, epochs[key], value)]
            case "complete":
                parts["ended"] = [ended(order, value=value)]
            case "prune":
                parts["ended"] = [ended(order, "pruned", value=value, rule_version=1)]
            case "crash":
                parts["ended"] = [ended(order, "crashed")]
        worker.sync(**parts)
        if not worker.held:
            break
        with store.reading() as tx:
            known = next(iter(pruning.rules_of(store, tx, studies.find(tx, name))), None)
        assert known is not None or pruner is MEDIAN
        if known is not None:
            assert dict(known.thresholds) == expected(store, name)
            assert versions.setdefault(known.version, known.thresholds) == known.thresholds
            assert known.version == max(versions)
        assert rules_of(store, name) == known
    with store.transaction() as tx:
        studies.apply_verb(tx, name, "cancel")


def study_count(store: Store) -> int:
    with store.reading() as tx:
        return len(tx.studies.page(limit=10_000, below_id=None, states=()))


def expected(store: Store, name: str) -> dict[int, float]:
    """The thresholds, from what the API shows."""
    with store.reading() as tx:
        study = studies.get(tx, name)
        page, _ = trials.list_page(tx, name, page_size=1_000, cursor=None, state=None)
        shown = [trials.get(tx, name, trial.number) for trial in page]
    assert isinstance(study.spec.pruner, MedianPruner | HalvingPruner)
    curves = []
    for trial in shown:
        values = {epoch.epoch: epoch.metrics[METRIC] for epoch in trial.epochs}
        curves.append(
            Curve(
                trial.runs[0].state is RunState.COMPLETE,
                1,
                standings(values, "maximize", keeps_best=study.spec.early_stopping is not None),
            )
        )
    return study.spec.pruner.thresholds(study.spec.pruner.basis(curves), "maximize")
