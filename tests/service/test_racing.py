"""Leaders get more seeds and the winner fresh ones, as trials of their own, once each."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from ridgeline.search.spec import InvalidSpec
from ridgeline.service import extending, studies, trials
from ridgeline.service.ledger import run_seed
from ridgeline.service.lifecycle import StudyState, TrialState
from ridgeline.service.protocol import RunOrder, RunReport
from ridgeline.service.resources import ExtendRequest, RetryRequest, Trial
from ridgeline.service.store.session import Store
from tests.service.factory import FakeWorker, ended, external, post, spec, study_of

RACING = {"seeds": 4, "leaders": 1}
SPACE = {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}}

# By trial of the search, the value with each seed: the first is lucky, the second the best.
VALUES = [
    [0.9, 0.5, 0.5, 0.5, 0.6, 0.7],
    [0.8, 0.8, 0.9, 0.9, 0.7, 0.8],
    [0.3, 0.9, 0.9, 0.9, 0.9, 0.9],
]


def racing_study(**changes: Any) -> Any:
    budget = {"trials": 3, "epochs": 3}
    return spec(space=SPACE, budget=budget, racing=RACING, fresh_seeds=2, **changes)


def end_as_told(
    store: Store, *, num_slots: int = 2, backwards: bool = False, failing: int | None = None
) -> None:
    """Train all that there is; `failing` is the number of a trial that diverges."""
    worker = FakeWorker(store, num_slots=num_slots)
    first: dict[float, int] = {}
    worker.sync()
    while worker.held:
        orders = list(worker.held.values())
        for order in sorted(orders, key=lambda one: one.trial):
            first.setdefault(float(order.config["learning_rate"]), order.trial)
        ends = []
        for order in orders[-1:] if backwards else orders[:1]:
            value = VALUES[first[float(order.config["learning_rate"])]][order.replicate]
            if order.trial == failing:
                ends.append(ended(order, "diverged"))
            else:
                metrics = {"validation_accuracy": value, "test_accuracy": 0.5}
                ends.append(ended(order, value=value, metrics=metrics))
        worker.sync(ended=ends)


def trials_of(store: Store) -> list[Trial]:
    with store.reading() as tx:
        return trials.list_page(tx, "s", page_size=100, cursor=None, state=None)[0]


def told(store: Store) -> list[tuple[Any, ...]]:
    return [
        (one.number, one.origin, one.repeats, [run.replicate for run in one.runs], one.value)
        for one in trials_of(store)
    ]


@pytest.mark.parametrize("reproducible", [False, True])
def test_leaders_race_and_the_winner_is_confirmed(store: Store, reproducible: bool) -> None:
    study = post(store, racing_study(reproducible=reproducible))
    end_as_told(store)
    assert told(store) == [
        (0, "sampler", None, [0], 0.9),
        (1, "sampler", None, [0], 0.8),
        (2, "sampler", None, [0], 0.3),
        (3, "racing", 0, [1], 0.5),  # 0.9 falls to 0.7, so the next one leads
        (4, "racing", 1, [1], 0.8),
        (5, "racing", 1, [2, 3], 0.9),
        (6, "confirmation", 1, [4, 5], 0.75),
    ]
    for trial in trials_of(store):
        assert all(run.seed == run_seed(study.spec, run.replicate) for run in trial.runs)
    found = study_of(store)
    assert (found.state, found.num_trials, found.trials.complete) == (StudyState.COMPLETED, 7, 7)
    assert found.best is not None
    assert found.best.fresh is not None
    assert (found.best.number, found.best.num_seeds) == (1, 4)
    assert found.best.value == pytest.approx(0.85)
    assert found.best.interval is not None
    assert found.best.interval.low < 0.85 < found.best.interval.high <= 1
    assert (found.best.fresh.trial, found.best.fresh.state) == (6, TrialState.COMPLETE)
    assert found.best.fresh.value == 0.75
    assert found.best.fresh.interval is not None
    assert found.best.fresh.selection_effect == pytest.approx(0.1)
    with store.reading() as tx:
        best = studies.best(tx, "s")
    assert (best.number, best.value, best.standing.num_seeds) == (1, 0.8, 4)


def test_who_is_faster_changes_nothing(store: Store) -> None:
    post(store, racing_study(reproducible=True))
    end_as_told(store, num_slots=3, backwards=True)
    assert told(store)[3:] == [
        (3, "racing", 0, [1], 0.5),
        (4, "racing", 1, [1], 0.8),
        (5, "racing", 1, [2, 3], 0.9),
        (6, "confirmation", 1, [4, 5], 0.75),
    ]


def test_a_leader_that_fails_is_out(store: Store) -> None:
    post(store, racing_study())
    end_as_told(store, failing=5)
    assert [one[1:3] for one in told(store)[5:]] == [
        ("racing", 1),
        ("racing", 0),
        ("confirmation", 0),
    ]
    best = study_of(store).best
    assert best is not None
    assert best.number == 0
    with store.transaction() as tx:  # its failure is no trial of the search
        again = extending.retry(tx, "s", RetryRequest(reasons=("diverged",)), max_open=10)
    assert again.state is StudyState.COMPLETED


def test_a_study_that_goes_on_confirms_another_winner(store: Store) -> None:
    post(store, racing_study())
    end_as_told(store)
    with store.transaction() as tx:
        extending.extend(tx, "s", ExtendRequest(trials=1), max_open=10)
    worker = FakeWorker(store)
    worker.sync()
    (order,) = worker.held.values()
    assert order.trial == 7
    while worker.held:
        worker.sync(ended=[_end(one, 0.95) for one in worker.held.values()])
    found = study_of(store)
    assert found.state is StudyState.COMPLETED
    assert [one[1:4] for one in told(store)[7:]] == [
        ("sampler", None, [0]),
        ("racing", 7, [1]),
        ("racing", 7, [2, 3]),
        ("confirmation", 7, [4, 5]),
    ]
    assert found.best is not None
    assert (found.best.number, found.best.num_seeds) == (7, 4)


def test_a_study_that_is_stopped_trains_nothing_again(store: Store) -> None:
    post(store, racing_study())
    worker = FakeWorker(store, num_slots=3)
    worker.sync()
    with store.transaction() as tx:
        studies.apply_verb(tx, "s", "stop")
    worker.end_all()
    assert [one[1] for one in told(store)] == ["sampler"] * 3
    assert study_of(store).state is StudyState.COMPLETED


def test_what_was_cancelled_is_added_again(store: Store) -> None:
    post(store, racing_study())
    worker = FakeWorker(store, num_slots=3)
    worker.sync()
    worker.sync(ended=[_end(one, 0.5) for one in worker.held.values()], free_slots={})
    with store.transaction() as tx:
        stopped = studies.apply_verb(tx, "s", "stop")
        assert stopped.state is StudyState.COMPLETED
        extending.extend(tx, "s", ExtendRequest(trials=1), max_open=10)
    worker.sync()
    while worker.held:
        worker.sync(ended=[_end(one, 0.5) for one in worker.held.values()])
    assert [(one.origin, one.repeats, one.reason) for one in trials_of(store)[3:]] == [
        ("racing", 0, "cancelled"),
        ("sampler", None, None),
        *[("racing", 0, None)] * 2,
        ("confirmation", 0, None),
    ]


def test_runs_of_racing_are_not_pruned(store: Store) -> None:
    post(store, racing_study(pruner={"name": "median", "startup": 1}))
    worker = FakeWorker(store, num_slots=3)
    worker.sync()
    reports = [
        RunReport(
            run=order.run, attempt=order.attempt, epoch=2, metrics={"validation_accuracy": 0.5}
        )
        for order in worker.held.values()
    ]
    worker.sync(reports=reports)
    first, *others = worker.held.values()
    (rules,) = worker.sync(ended=[_end(first, 0.5)]).rules
    assert rules.thresholds
    ends = [_end(order, 0.5) for order in others]
    answer = worker.sync(ended=ends, rules=worker.versions)
    (later,) = answer.rules
    assert answer.start, "a leader races"
    assert later.version > rules.version
    assert later.thresholds == {}


def test_only_one_confirmation_of_a_winner_can_stand(store: Store) -> None:
    post(store, racing_study())
    end_as_told(store)
    with store.reading() as tx:
        (trial,) = tx.trials.page(studies.find(tx, "s").id, above_number=5)
    row = {**trial._asdict(), "number": 7}
    del row["id"]
    with store.transaction() as tx, pytest.raises(IntegrityError):
        tx.trials.insert(trial.study_id, [row])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"racing": {"seeds": 1}}, "racing.seeds"),
        ({"racing": {"leaders": 0}}, "racing.leaders"),
        ({"racing": {"seeds": 3}, "replicates": 3}, "racing.seeds"),
        ({"fresh_seeds": 1}, "fresh_seeds"),
        ({"fresh_seeds": 100}, "fresh_seeds"),
        (
            {"fresh_seeds": 3, "space": {"dropout": {"type": "values", "values": [0.1]}},
             "budget": {"trials": 1}, "task": {"name": "mlp", "dataset": "digits",
             "split": {"train_on": "train+validation"}}},
            "fresh_seeds",
        ),
        (
            {"racing": {"seeds": 20}, "task": {"name": "mlp", "dataset": "digits",
             "split": {"folds": 6}}},
            "racing.seeds",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec) as error:
        spec(**changes)
    assert [name for name, _ in error.value.problems] == [field]


@pytest.mark.parametrize("changes", [{"racing": {}}, {"fresh_seeds": 3}])
def test_external_studies_have_no_seeds_to_repeat_by(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidSpec) as error:
        external(**changes)
    assert [name for name, _ in error.value.problems] == [next(iter(changes))]


def _end(order: RunOrder, value: float) -> Any:
    return ended(order, value=value, metrics={"validation_accuracy": value, "test_accuracy": 0.5})
