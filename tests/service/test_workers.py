"""The sync call: repeatable, level-triggered, and nothing lost on either side."""

from __future__ import annotations

import pytest

from ridgeline.search.tasks.mlp import MlpTask
from ridgeline.service import studies, trials, workers
from ridgeline.service.errors import Conflict, InvalidInput, NotFound
from ridgeline.service.lifecycle import FailReason, RunState, StudyState, TrialState
from ridgeline.service.protocol import RunReport, SyncRequest
from ridgeline.service.resources import Trial
from ridgeline.service.store.session import Store
from tests.conftest import ManualClock
from tests.parallel import in_parallel
from tests.service.factory import (
    SETTINGS,
    FakeWorker,
    ended,
    post,
    spec,
    study_of,
    value_of,
)


def all_trials(store: Store, name: str = "s") -> list[Trial]:
    with store.reading() as tx:
        found, cursor = trials.list_page(tx, name, page_size=1_000, cursor=None, state=None)
    assert cursor is None
    return found


def drain(*some_workers: FakeWorker, clock: ManualClock | None = None) -> None:
    """Train until nobody gets another run, each round for a second where there is a clock."""
    for worker in some_workers:
        worker.sync()
    while any(worker.held for worker in some_workers):
        if clock is not None:
            clock.advance(1)
        for worker in some_workers:
            worker.end_all()


def test_a_study_runs_to_its_end(store: Store, clock: ManualClock) -> None:
    post(store, spec())
    worker = FakeWorker(store, num_slots=2)
    assert study_of(store).state is StudyState.QUEUED
    worker.sync()
    assert study_of(store).state is StudyState.RUNNING
    assert len(worker.held) == 2
    drain(worker, clock=clock)
    study = study_of(store)
    assert study.state is StudyState.COMPLETED
    assert study.trials.complete == 6
    assert study.device_seconds == 6.0
    found = all_trials(store)
    assert [trial.number for trial in found] == list(range(6))
    assert all(trial.state is TrialState.COMPLETE for trial in found)
    assert study.best is not None
    assert study.best.value == max(trial.value for trial in found if trial.value is not None)


def test_a_worker_is_told_all_it_needs(store: Store) -> None:
    post(store, spec(early_stopping={"patience": 2}))
    (order,) = FakeWorker(store).sync().start
    assert order.study == "s"
    assert order.config["epochs"] == 3
    assert set(MlpTask.parameters) == set(order.config)
    assert order.early_stopping == {"patience": 2, "min_delta": 0.0}
    assert order.objective == {"metric": "validation_accuracy", "direction": "maximize"}
    assert order.data_fingerprint is not None


def test_a_lost_answer_is_given_again(store: Store) -> None:
    post(store, spec())
    worker = FakeWorker(store)
    statement = worker.statement()
    lost = worker.send(statement)
    before = study_of(store)
    assert worker.send(statement).start == lost.start
    assert study_of(store) == before


def test_repeating_an_end_changes_nothing(store: Store) -> None:
    post(store, spec())
    worker = FakeWorker(store)
    (order,) = worker.sync().start
    report = RunReport(
        run=order.run, attempt=1, epoch=1, metrics={"validation_accuracy": 0.5, "train_loss": 1.0}
    )
    statement = worker.statement(ended=[ended(order)], reports=[report], free_slots={})
    worker.send(statement)
    before = study_of(store)
    assert worker.send(statement).refused == ()
    later = statement.model_copy(update={"sync_seq": statement.sync_seq + 1})
    assert worker.send(later).refused == ()
    assert study_of(store) == before
    assert before.trials.complete == 1


def test_a_worker_of_an_earlier_version_is_still_listed(store: Store) -> None:
    worker = FakeWorker(store)
    with store.transaction() as tx:
        (row,) = tx.workers.all()
        tx.workers.update(worker.id, devices=[{**row.devices[0], "program": "eager/width=1"}])
        (listed,) = workers.list_all(tx)
    assert [device.name for device in listed.devices] == ["cpu:0"]


def test_an_older_statement_is_refused(store: Store) -> None:
    worker = FakeWorker(store)
    first, second = worker.statement(), worker.statement()
    worker.send(second)
    with pytest.raises(Conflict, match="older"):
        worker.send(first)


def test_an_unknown_worker_is_told_to_register(store: Store) -> None:
    with pytest.raises(NotFound, match="register"):
        workers.sync(store, "nobody", SyncRequest(sync_seq=1), settings=SETTINGS)


def test_free_slots_are_of_registered_devices(store: Store) -> None:
    with pytest.raises(InvalidInput, match="tpu:9"):
        FakeWorker(store).sync(free_slots={"tpu:9": 1})


def test_a_silent_worker_loses_its_runs_uncharged(store: Store, clock: ManualClock) -> None:
    post(store, spec())
    lost, other = FakeWorker(store, num_slots=2), FakeWorker(store)
    first, second = lost.sync().start
    lost.sync(reports=[RunReport(run=first.run, attempt=1, epoch=1, metrics={"train_loss": 1.0})])
    clock.advance(SETTINGS.lease_seconds - 1)
    other.sync(free_slots={})
    assert workers.expire(store) == 0
    clock.advance(2)
    assert workers.expire(store) == 2
    assert workers.expire(store) == 0
    again = other.sync().start
    assert [(order.run, order.attempt) for order in again] == [(first.run, 2)]
    assert again[0].config == first.config
    assert again[0].seed == first.seed
    with pytest.raises(Conflict, match="register"):
        lost.sync(ended=[ended(second)])
    drain(other)
    found = all_trials(store)
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * 6
    assert [trial.runs[0].attempt for trial in found[:3]] == [2, 2, 1]
    assert all(trial.runs[0].charges == 0 for trial in found)


def test_a_run_that_starts_again_forgets_its_epochs(store: Store, clock: ManualClock) -> None:
    post(store, spec())
    lost = FakeWorker(store)
    (order,) = lost.sync().start
    lost.sync(reports=[RunReport(run=order.run, attempt=1, epoch=1, metrics={"train_loss": 1.0})])
    clock.advance(SETTINGS.lease_seconds + 1)
    workers.expire(store)
    with store.reading() as tx:
        trial = trials.get(tx, "s", order.trial)
    assert trial.epochs == ()
    assert trial.runs[0].state is RunState.WAITING
    assert trial.runs[0].program is None


def test_a_late_writer_is_refused(store: Store, clock: ManualClock) -> None:
    """The worker came back under a new registration, its old attempt is void."""
    post(store, spec())
    late = FakeWorker(store)
    (order,) = late.sync().start
    clock.advance(SETTINGS.lease_seconds + 1)
    workers.expire(store)
    back = FakeWorker(store, num_slots=0)
    answer = back.sync(ended=[ended(order)])
    assert [(refusal.run, refusal.attempt) for refusal in answer.refused] == [(order.run, 1)]
    assert study_of(store).trials.complete == 0


def test_a_worker_that_leaves_gives_its_runs_back(store: Store) -> None:
    post(store, spec())
    worker = FakeWorker(store, num_slots=2)
    worker.sync()
    statement = worker.statement(leaving=True)
    worker.send(statement)
    worker.send(statement)
    assert study_of(store).trials.running == 2
    other = FakeWorker(store, num_slots=2)
    assert [order.attempt for order in other.sync().start] == [2, 2]


@pytest.mark.parametrize("reason", ["crashed", "out_of_memory", "timeout"])
def test_a_failure_is_charged_until_the_run_is_given_up(store: Store, reason: str) -> None:
    post(store, spec(budget={"trials": 1}))
    worker = FakeWorker(store)
    for attempt in (1, 2, 3):
        (order,) = worker.held.values() if worker.held else worker.sync().start
        assert order.attempt == attempt
        worker.sync(ended=[ended(order, reason, error="boom", log_tail="last words")])
    (trial,) = all_trials(store)
    assert (trial.state, trial.reason) == (TrialState.FAIL, FailReason(reason))
    (run,) = trial.runs
    assert (run.charges, run.error, run.log_tail) == (3, "boom", "last words")
    study = study_of(store)
    assert study.state is StudyState.FAILED
    assert study.reason == f"every trial failed; 1 {reason.replace('_', ' ')}"


def test_divergence_is_final(store: Store) -> None:
    post(store, spec(budget={"trials": 2}))
    worker = FakeWorker(store)
    (order,) = worker.sync().start
    worker.sync(ended=[ended(order, "diverged", error="loss is nan at epoch 1")])
    drain(worker)
    first, second = all_trials(store)
    assert (first.state, first.reason) == (TrialState.FAIL, FailReason.DIVERGED)
    assert second.state is TrialState.COMPLETE
    assert study_of(store).state is StudyState.COMPLETED


def test_what_its_own_code_says_of_a_run_is_final(store: Store) -> None:
    post(store, spec(budget={"trials": 1}))
    worker = FakeWorker(store)
    (order,) = worker.sync().start
    worker.sync(ended=[ended(order, "failed", error="ValueError: x", log_tail="Traceback")])
    ((run,),) = (trial.runs for trial in all_trials(store))
    assert (run.state, run.reason, run.error, run.log_tail, run.charges) == (
        RunState.FAIL,
        FailReason.CRASHED,
        "ValueError: x",
        "Traceback",
        0,
    )


def test_cancelled_runs_are_stopped_and_their_results_refused(store: Store) -> None:
    post(store, spec())
    worker = FakeWorker(store)
    (order,) = worker.sync().start
    with store.transaction() as tx:
        studies.apply_verb(tx, "s", "cancel")
    answer = worker.sync(ended=[ended(order)], held=[worker.statement().held[0]])
    assert [(key.run, key.attempt) for key in answer.stop] == [(order.run, order.attempt)]
    assert answer.start == ()
    (trial,) = all_trials(store)
    assert (trial.state, trial.reason) == (TrialState.FAIL, FailReason.CANCELLED)
    assert study_of(store).state is StudyState.CANCELLED


def test_replicates_are_runs_with_seeds_shared_by_all_trials(store: Store) -> None:
    post(store, spec(replicates=3, budget={"trials": 2}))
    worker = FakeWorker(store, num_slots=6)
    orders = worker.sync().start
    assert [(order.trial, order.replicate) for order in orders] == [
        (trial, replicate) for trial in range(2) for replicate in range(3)
    ]
    seeds = [[order.seed for order in orders if order.trial == trial] for trial in range(2)]
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0])) == 3
    values = [0.25, 0.5, 0.75]
    worker.sync(
        ended=[
            ended(order, value=value) for order, value in zip(orders, values + values, strict=True)
        ]
    )
    assert [trial.value for trial in all_trials(store)] == [0.5, 0.5]


def test_folds_are_runs_like_replicates(store: Store) -> None:
    task = {"name": "mlp", "dataset": "digits", "split": {"folds": 3}}
    post(store, spec(task=task, replicates=2, budget={"trials": 2}))
    worker = FakeWorker(store, num_slots=20)
    orders = worker.sync().start
    assert [(order.trial, order.replicate) for order in orders] == [
        (trial, run) for trial in range(2) for run in range(6)
    ]
    assert len({order.seed for order in orders}) == 6
    worker.sync(ended=[ended(order, value=order.replicate / 10) for order in orders])
    assert [trial.value for trial in all_trials(store)] == [pytest.approx(0.25)] * 2
    assert study_of(store).state is StudyState.COMPLETED


def test_max_parallel_bounds_the_trials_in_flight(store: Store) -> None:
    post(store, spec(budget={"trials": 6, "max_parallel": 2}, replicates=2))
    worker = FakeWorker(store, num_slots=10)
    assert sorted({order.trial for order in worker.sync().start}) == [0, 1]


def test_a_queue_takes_no_trial_that_another_device_could_train(store: Store) -> None:
    post(store, spec(budget={"trials": 6, "max_parallel": 2}))
    first, second = FakeWorker(store, queue=2), FakeWorker(store, queue=2)
    assert len(first.sync().start) == 1
    assert len(second.sync().start) == 1


def test_a_lonely_device_has_its_next_run_at_hand(store: Store) -> None:
    post(store, spec(budget={"trials": 6, "max_parallel": 2}))
    assert len(FakeWorker(store, queue=2).sync().start) == 2


def test_a_study_goes_only_to_workers_with_its_data(store: Store) -> None:
    worker = FakeWorker(store)
    post(store, spec())
    stranger = FakeWorker(store, fingerprint="cd" * 32)
    assert stranger.sync().start == ()
    assert len(worker.sync().start) == 1


def test_a_study_says_why_it_waits(store: Store) -> None:
    assert "no worker is connected" in str(post(store, spec()).reason)
    FakeWorker(store)
    assert study_of(store).reason == "waits for its turn on a device"
    post(store, spec("other", task={"name": "mlp", "dataset": "breast-cancer"}))
    assert "breast-cancer" in str(study_of(store, "other").reason)


def test_higher_priority_goes_first_and_equals_share(store: Store) -> None:
    for name, priority in (("low", 0), ("a", 1), ("b", 1)):
        post(store, spec(name, priority=priority))
    worker = FakeWorker(store, num_slots=6)
    names = [order.study for order in worker.sync().start]
    assert sorted(names) == ["a"] * 3 + ["b"] * 3


def test_two_workers_finish_one_run_and_one_of_them_wins(store: Store, clock: ManualClock) -> None:
    """The same end from four threads at once: one transition, one result."""
    post(store, spec(budget={"trials": 8}))
    worker = FakeWorker(store, num_slots=8)
    worker.sync()
    clock.advance(1)
    for order in list(worker.held.values()):
        statement = worker.statement(ended=[ended(order)], free_slots={})
        in_parallel(4, lambda said=statement: worker.send(said))  # type: ignore[misc]
        worker.held.pop((order.run, order.attempt))
    study = study_of(store)
    assert study.trials.complete == 8
    assert study.device_seconds == 8.0


def test_what_no_run_can_survive_fails_the_study_at_once(store: Store) -> None:
    post(store, spec(budget={"trials": 300}))
    worker, other = FakeWorker(store, num_slots=3), FakeWorker(store, num_slots=2)
    (first, second, third), waiting = worker.sync().start, other.sync().start
    why = "class 3 has 1 of the 3 rows needed"
    statement = worker.statement(
        ended=[ended(o, "never_trains", error=why) for o in (first, second)]
    )
    answer = worker.send(statement)
    assert (answer.refused, answer.start) == ((), ())
    assert [stop.run for stop in answer.stop] == [third.run]
    study = study_of(store)
    assert (study.state, study.reason) == (StudyState.FAILED, why)
    assert study.trials.fail == study.num_trials == 5
    runs = [trial.runs[0] for trial in all_trials(store)]
    assert [run.reason for run in runs] == [FailReason.CRASHED] * 2 + [FailReason.CANCELLED] * 3
    assert [run.error for run in runs[:2]] == [why, why]
    assert [run.charges for run in runs] == [0] * 5
    assert [stop.run for stop in other.sync().stop] == [order.run for order in waiting]
    assert worker.send(statement).refused == ()
    assert study_of(store) == study


def test_the_reason_is_told_where_the_last_trial_of_a_study_cannot_be_trained(
    store: Store,
) -> None:
    post(store, spec(budget={"trials": 1}))
    worker = FakeWorker(store)
    (order,) = worker.sync().start
    worker.sync(ended=[ended(order, "never_trains", error="why")])
    assert (study_of(store).state, study_of(store).reason) == (StudyState.FAILED, "why")


@pytest.mark.parametrize("outcome", ["complete", "diverged", "crashed", "released"])
def test_a_run_has_not_cost_more_than_the_time_it_was_held(
    store: Store, clock: ManualClock, outcome: str
) -> None:
    post(store, spec())
    worker = FakeWorker(store, num_slots=2)
    first, second = worker.sync().start
    clock.advance(5)
    said = [ended(first, outcome, device_seconds=1e9), ended(second, outcome, device_seconds=3)]
    worker.sync(ended=said, free_slots={})
    with store.reading() as tx:
        study = studies.find(tx, "s")
        runs = tx.runs.get([first.run, second.run])
    assert [run.device_seconds for run in runs.values()] == [5, 3]
    assert (study.device_seconds, study.virtual_seconds) == (8, 8)


def test_a_clock_set_back_makes_no_negative_cost(store: Store, clock: ManualClock) -> None:
    post(store, spec())
    worker = FakeWorker(store)
    worker.sync()
    clock.advance(-3_600)
    worker.end_all()
    assert study_of(store).device_seconds == 0


@pytest.mark.parametrize("sampler", ["grid", "random", "tpe", "auto"])
def test_the_trials_do_not_depend_on_the_number_of_workers(store: Store, sampler: str) -> None:
    outcomes = []
    for name, counts in (("one", [1]), ("two", [1, 2]), ("many", [5, 1, 2])):
        budget = {} if sampler == "grid" else {"trials": 14, "max_parallel": 3}
        space = {
            "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True, "points": 7},
            "optimizer": {"type": "values", "values": ["sgd", "adam"]},
        }
        post(
            store,
            spec(
                name,
                space=space,
                budget=budget,
                sampler={"name": sampler, "seed": 3},
                reproducible=True,
            ),
        )
        drain(*[FakeWorker(store, num_slots=count) for count in counts])
        outcomes.append([(t.number, t.config, t.value) for t in all_trials(store, name)])
    assert len(outcomes[0]) == 14
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_values_come_from_the_configuration(store: Store) -> None:
    post(store, spec())
    worker = FakeWorker(store)
    (order,) = worker.sync().start
    worker.end_all()
    assert all_trials(store)[0].value == value_of(order)


def test_data_sets_that_a_worker_gets_later(store: Store) -> None:
    """New ones are trained on; those that have changed are other data, for other studies."""
    toy: dict[str, object] = {
        "name": "toy",
        "fingerprint": "cd" * 32,
        "num_rows": 90,
        "num_features": 4,
        "num_classes": 3,
        "has_test_part": True,
    }
    worker = FakeWorker(store, num_slots=2)
    task = {"name": "mlp", "dataset": "toy"}
    with pytest.raises(InvalidInput, match="RIDGELINE_DATA_ROOT"):
        post(store, spec(task=task))
    worker.sync(datasets=[toy])
    post(store, spec(task=task))
    orders = worker.sync().start
    assert [order.data_fingerprint for order in orders] == ["cd" * 32] * 2
    changed = {**toy, "fingerprint": "ef" * 32}
    ends = [ended(order) for order in orders]
    assert worker.sync(datasets=[changed], ended=ends).start == ()
    reason = str(study_of(store).reason)
    assert f"no connected worker has the data set toy with the fingerprint {'cd' * 32}" in reason
    assert "RIDGELINE_DATA_ROOT" in reason
    post(store, spec("t", task=task))
    assert {order.data_fingerprint for order in worker.sync().start} == {"ef" * 32}
