"""Every suggestion can be derived again from what the sampler saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import pytest

from ridgeline.search.space import Config
from ridgeline.service import enqueueing, projection, sampling, studies, trials
from ridgeline.service.errors import InvalidInput, NotFound
from ridgeline.service.explaining import explain
from ridgeline.service.external_protocol import SuggestRequest
from ridgeline.service.resources import Trial
from ridgeline.service.sampling import Outlook, Proposal
from ridgeline.service.store.session import Store
from tests.conftest import ManualClock
from tests.parallel import in_parallel
from tests.service.factory import FakeWorker, ended, external, post, spec
from tests.service.test_workers import all_trials

SPACE = {
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True, "points": 4},
    "l2": {"type": "float", "low": 1e-6, "high": 1e-2, "log": True, "zero": True, "points": 3},
    "batch_size": {"type": "values", "values": [16, 32, 64]},
}

METRICS = {"minimize": "validation_loss", "maximize": "validation_accuracy"}


def begun(store: Store, sampler: str, **changes: Any) -> FakeWorker:
    """A worker at the first trials of a study, of which a person gave number 0."""
    searched = spec(
        space=SPACE,
        sampler={"name": sampler, "seed": 11},
        budget={"trials": 20, "max_parallel": 4},
        **changes,
    )
    post(store, searched)
    with store.transaction() as tx:
        trials.enqueue(tx, "s", [{"learning_rate": 0.01, "l2": 0.0, "batch_size": 32}])
    worker = FakeWorker(store, num_slots=4)
    worker.sync()
    return worker


@pytest.mark.parametrize("reproducible", [False, True])
@pytest.mark.parametrize("sampler", ["grid", "random", "tpe", "auto"])
def test_suggestions_are_derived_again(store: Store, sampler: str, reproducible: bool) -> None:
    worker = begun(store, sampler, reproducible=reproducible)
    while worker.held:
        orders = list(worker.held.values())
        # End the newest first, so that what was seen is not simply "all trials before".
        worker.sync(
            ended=[
                ended(order, "diverged" if order.trial == 5 else "complete")
                for order in orders[-2:]
            ]
        )
    store.histories = type(store.histories)()
    found = all_trials(store)
    assert len(found) == 21 if sampler == "grid" else 20
    with store.reading() as tx:
        study_id = studies.find(tx, "s").id
        for trial in found[1:]:
            again = sampling.rederive(tx, study_id, trial.number)
            assert (again.config, again.seed, again.grid_cell) == (
                trial.config,
                trial.sampler_seed,
                trial.grid_cell,
            )
        with pytest.raises(NotFound, match="chosen by a sampler"):
            sampling.rederive(tx, study_id, 0)


@pytest.mark.parametrize("reproducible", [False, True])
@pytest.mark.parametrize("sampler", ["grid", "random", "tpe", "gp", "auto"])
@pytest.mark.parametrize("direction", METRICS)
def test_a_trial_is_explained_by_what_its_sampler_knew(
    store: Store, direction: str, sampler: str, reproducible: bool
) -> None:
    objective = {"metric": METRICS[direction], "direction": direction}
    worker = begun(store, sampler, reproducible=reproducible, objective=objective)
    while worker.held:
        orders = list(worker.held.values())[-2:]
        worker.sync(
            ended=[
                ended(order, value=value, metrics={METRICS[direction]: value})
                for order in orders
                for value in [1 - float(order.config["batch_size"]) / 128]
            ]
        )
    assert explain(store, "s", 0).chosen_by == "person"
    for trial in all_trials(store)[1:]:
        found = explain(store, "s", trial.number)
        assert found.is_derived_again
        assert found.num_ended is not None
        assert found.num_in_flight is not None
        assert found.num_ended + found.num_in_flight == trial.number
        assert found.num_in_flight <= 4
        is_model = found.chosen_by == "model"
        assert is_model == (sampler not in ("grid", "random") and found.num_ended >= 8)
        assert (found.num_candidates is not None) == is_model
        assert (found.expected_value is not None) == (is_model and sampler != "tpe")
        assert (found.density_ratio is not None) == (is_model and sampler == "tpe")
        assert len(found.nearest) == (min(5, found.num_ended) if is_model else 0)
        distances = [known.distance for known in found.nearest]
        assert distances == sorted(distances)
        assert all(known.number < trial.number for known in found.nearest)
        if found.expected_value is not None:
            assert found.expected_low is not None
            assert found.expected_high is not None
            assert found.expected_low <= found.expected_value <= found.expected_high
    with pytest.raises(NotFound, match="s has no trial 99"):
        explain(store, "s", 99)


@pytest.mark.parametrize("reproducible", [False, True])
@pytest.mark.parametrize("sampler", ["random", "tpe", "auto"])
def test_what_an_enqueued_trial_leaves_out_is_derived_again(
    store: Store, sampler: str, reproducible: bool
) -> None:
    """Of a study with results, so that TPE has something to go by."""
    post(
        store,
        spec(
            space=SPACE,
            sampler={"name": sampler, "seed": 11},
            budget={"trials": 40, "max_parallel": 4},
            reproducible=reproducible,
        ),
    )
    worker = FakeWorker(store, num_slots=4)
    num_before = 0 if reproducible else 20
    while not reproducible and len(all_trials(store)) < num_before:
        worker.sync(ended=[ended(order, "complete") for order in worker.held.values()])
    first = len(all_trials(store))
    configs: list[Config] = [{"batch_size": 32}, {}, {"l2": 0, "learning_rate": 0.01}]
    whole: Config = {"learning_rate": 0.001, "l2": 0.0, "batch_size": 64}
    enqueue(store, [*configs, whole])
    worker.sync(ended=[ended(order, "complete") for order in worker.held.values()])
    enqueue(store, configs)
    store.histories = type(store.histories)()
    found = all_trials(store)[first:]
    found = [trial for trial in found if trial.origin == "enqueued"]
    assert [trial.given for trial in found] == [
        (("batch_size",), (), ("learning_rate", "l2"), tuple(SPACE))[i]
        for i in (0, 1, 2, 3, 0, 1, 2)
    ]
    assert [{name: t.config[name] for name in t.given or ()} for t in found] == [
        {"batch_size": 32}, {}, {"learning_rate": 0.01, "l2": 0.0}, whole,
        {"batch_size": 32}, {}, {"learning_rate": 0.01, "l2": 0.0},
    ]  # fmt: skip
    with store.reading() as tx:
        study_id = studies.find(tx, "s").id
        for trial in found:
            again = sampling.rederive(tx, study_id, trial.number)
            assert (again.config, again.seed, again.given) == (
                trial.config,
                trial.sampler_seed,
                trial.given,
            )


def test_a_grid_chooses_nothing_for_an_enqueued_trial(store: Store) -> None:
    post(store, spec(space=SPACE, sampler={"name": "grid"}, budget={"epochs": 1}))
    with pytest.raises(InvalidInput) as caught:
        enqueue(store, [{"batch_size": 32}])
    reason = "is missing: a grid chooses no values, so give every parameter"
    assert caught.value.problems == [
        ("configs.0.learning_rate", reason),
        ("configs.0.l2", reason),
    ]


def test_the_sampler_is_asked_again_where_its_numbers_were_taken(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry takes no turn: it may take the numbers while the sampler computes."""
    post(store, external(budget={"trials": 20}))
    trials.suggest(store, "s", SuggestRequest())
    propose = Outlook.propose

    def overtaken(outlook: Outlook) -> Proposal:
        proposal = propose(outlook)
        monkeypatch.setattr(Outlook, "propose", propose)
        with store.transaction() as tx:
            trials.enqueue(tx, "s", [{"x": 0.5}])
        return proposal

    monkeypatch.setattr(Outlook, "propose", overtaken)
    (trial,) = enqueue(store, [{}])
    assert trial.number == 2
    with store.reading() as tx:
        assert sampling.rederive(tx, studies.find(tx, "s").id, 2).config == trial.config


def enqueue(store: Store, configs: Sequence[Config]) -> list[Trial]:
    return enqueueing.enqueue(store, "s", configs, remember=lambda tx, found: None)


@pytest.fixture
def proposed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers that any sampler has been asked for."""
    numbers: list[int] = []
    propose = Outlook.propose

    def noted(outlook: Outlook) -> Proposal:
        proposal = propose(outlook)
        numbers.extend(one.number for one in proposal.suggestions)
        return proposal

    monkeypatch.setattr(Outlook, "propose", noted)
    return numbers


@pytest.mark.parametrize("sampler", ["random", "tpe", "auto"])
def test_of_many_who_ask_at_once_nobody_is_asked_in_vain(
    store: Store, clock: ManualClock, proposed: list[int], sampler: str
) -> None:
    """Two api processes, eight programs: whoever waits for the turn has not to start over."""
    budget = {"trials": 40, "max_parallel": 40}
    post(store, external(sampler={"name": sampler, "seed": 1}, budget=budget))
    other = Store(
        store.url.render_as_string(hide_password=False), clock=clock, project=projection.project
    )
    of_threads = cycle([store] if store.url.get_backend_name() == "sqlite" else [store, other])
    handed: list[int] = []

    def program() -> None:
        of_thread = next(of_threads)
        for _ in range(5):
            (trial,) = trials.suggest(of_thread, "s", SuggestRequest()).trials
            handed.append(trial.number)

    in_parallel(8, program)
    other.close()
    assert sorted(handed) == sorted(proposed) == list(range(40))


def test_of_many_workers_none_is_given_trials_in_vain(store: Store, proposed: list[int]) -> None:
    post(store, spec(budget={"trials": 24, "epochs": 3}))
    workers = [FakeWorker(store, num_slots=3) for _ in range(8)]
    to_call = iter(workers)
    in_parallel(8, lambda: next(to_call).sync())
    assert sorted(order.trial for w in workers for order in w.held.values()) == list(range(24))
    assert Counter(proposed).most_common(1)[0][1] == 1
