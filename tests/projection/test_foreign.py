"""What somebody else writes to a copy is noticed, told, and undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import RDBStorage
from sqlalchemy import text
from sqlalchemy.engine import make_url

from ridgeline.search.space import Config
from ridgeline.service import projection, studies, trials
from ridgeline.service.store.engine import open_engine
from ridgeline.service.store.session import Store
from tests.service.factory import FakeWorker, ended, post, spec, study_of

RUNNING, WAITING = 0, 1
RATE: Config = {"learning_rate": 0.01}


@pytest.fixture
def worker(store: Store) -> FakeWorker:
    """Of the study `s`, it trains trial 0; trial 1 waits, and trial 2 is not there yet."""
    post(store, spec(budget={"trials": 6, "epochs": 3, "max_parallel": 1}))
    worker = FakeWorker(store)
    worker.sync()
    with store.transaction() as tx:
        trials.enqueue(tx, "s", [RATE])
    return worker


@pytest.fixture
def copy(store: Store, worker: FakeWorker) -> Iterator[optuna.Study]:
    storage = RDBStorage(store.url.render_as_string(hide_password=False))
    yield optuna.load_study(study_name="s", storage=storage)
    storage.remove_session()
    storage.engine.dispose()


def trial_id(copy: optuna.Study, number: int) -> int:
    return copy.trials[number]._trial_id


def take_a_waiting_trial(copy: optuna.Study) -> None:
    assert copy.ask().number == WAITING


def end_a_waiting_trial(copy: optuna.Study) -> None:
    copy.tell(copy.ask(), 0.99)


def add_a_trial(copy: optuna.Study) -> None:
    copy.add_trial(optuna.create_trial(value=0.99))


def end_a_running_trial(copy: optuna.Study) -> None:
    copy.tell(RUNNING, 0.99)


def describe_a_running_trial(copy: optuna.Study) -> None:
    copy._storage.set_trial_user_attr(trial_id(copy, RUNNING), "device_seconds", 7)


def add_a_parameter(copy: optuna.Study) -> None:
    copy._storage.set_trial_param(
        trial_id(copy, RUNNING), "momentum", 0.5, FloatDistribution(0.0, 1.0)
    )


def replace_the_study(copy: optuna.Study) -> None:
    optuna.delete_study(study_name="s", storage=copy._storage)
    optuna.create_study(study_name="s", storage=copy._storage, direction="maximize").ask()


NOTICED = [
    take_a_waiting_trial,
    end_a_waiting_trial,
    add_a_trial,
    end_a_running_trial,
    describe_a_running_trial,
    add_a_parameter,
]


def change(store: Store, verb: studies.Verb) -> None:
    with store.transaction() as tx:
        studies.apply_verb(tx, "s", verb)


def differences(store: Store) -> list[str]:
    with store.reading() as tx:
        return projection.compare(tx.connection, studies.find(tx, "s").id)


def values(store: Store) -> dict[int, float | None]:
    """Of the copy as a new reader sees it, by number."""
    url = store.url.render_as_string(hide_password=False)
    storage = RDBStorage(url)
    found = optuna.load_study(study_name="s", storage=storage).trials
    storage.remove_session()
    storage.engine.dispose()
    assert [trial.number for trial in found] == list(range(len(found)))
    return {trial.number: trial.value for trial in found}


@pytest.mark.parametrize("write", NOTICED)
def test_what_the_next_write_notices_is_told_and_undone(
    store: Store, worker: FakeWorker, copy: optuna.Study, write: Callable[[optuna.Study], None]
) -> None:
    assert differences(store) == []
    write(copy)
    assert differences(store) != []
    # At the latest when the trial is to be written: trial 0 ends, then trial 1 begins.
    worker.sync(ended=[ended(order) for order in worker.held.values()], free_slots={"cpu:0": 0})
    if study_of(store).projection_error is None:
        worker.sync()
    told = str(study_of(store).projection_error)
    assert "somebody else has written to the copy of this study" in told
    assert "doctor --repair" in told
    change(store, "pause")
    assert study_of(store).projection_error is None
    assert differences(store) == []
    change(store, "resume")
    worker.sync()
    while worker.held:
        worker.end_all()
    with store.reading() as tx:
        ours = {trial.number: trial.value for trial in tx.trials.page(studies.find(tx, "s").id)}
    assert values(store) == ours
    assert len(ours) == 6


def test_a_study_in_the_place_of_the_copy_is_no_copy(
    store: Store, worker: FakeWorker, copy: optuna.Study
) -> None:
    replace_the_study(copy)
    change(store, "pause")
    assert study_of(store).projection_error is not None
    if store.url.get_backend_name() == "sqlite":  # it has the same id there
        change(store, "resume")
        assert (study_of(store).projection_error, differences(store)) == (None, [])


STATEMENTS = {
    "UPDATE study_directions SET direction = 'MINIMIZE'": "the direction of objective 0",
    "UPDATE studies SET study_name = 'mine'": "all of it: it was deleted or renamed",
    "UPDATE trials SET state = 'FAIL' WHERE number = 0": "trial 0",
    "DELETE FROM trial_params WHERE trial_id IN (SELECT trial_id FROM trials WHERE number = 1)": (
        "trial 1: parameter learning_rate"
    ),
    "UPDATE trial_params SET param_value = 0.5 "
    "WHERE trial_id IN (SELECT trial_id FROM trials WHERE number = 1)": (
        "trial 1: parameter learning_rate"
    ),
    "UPDATE trial_values SET value = 0.99": "trial 0: the value of objective 0",
    "UPDATE trial_intermediate_values SET intermediate_value = 0.99 WHERE step = 2": (
        "trial 0: step 2"
    ),
    "UPDATE trial_user_attributes SET value_json = '\"me\"' WHERE key = 'device_seconds'": (
        "trial 0: user attribute device_seconds"
    ),
    "INSERT INTO study_user_attributes (study_id, key, value_json) "
    "SELECT study_id, 'mine', '1' FROM studies": "the study's user attribute mine",
    "INSERT INTO trial_system_attributes (trial_id, key, value_json) "
    "SELECT trial_id, 'mine', '1' FROM trials WHERE number = 0": "trial 0: system attribute mine",
    "UPDATE study_system_attributes SET value_json = '\"x\"' WHERE key = 'dashboard:note_str:0'": (
        "the study's system attribute dashboard:note_str:0"
    ),
    "UPDATE study_system_attributes SET value_json = '\"x\"' "
    "WHERE key = 'dashboard:plot_data:learning-curves-1:0'": (
        "the study's system attribute dashboard:plot_data:learning-curves-1:0"
    ),
    "INSERT INTO study_system_attributes (study_id, key, value_json) "
    "SELECT study_id, 'mine', '1' FROM studies": "the study's system attribute mine",
}


def test_comparing_finds_whatever_differs_and_rebuilding_mends_it(
    store: Store, worker: FakeWorker
) -> None:
    orders = list(worker.held.values())
    worker.sync(
        reports=[
            {
                "run": order.run,
                "attempt": order.attempt,
                "epoch": epoch,
                "metrics": {"validation_accuracy": 0.5},
            }
            for order in orders
            for epoch in (1, 2)
        ]
    )
    worker.end_all()
    with store.reading() as tx:
        study_id = studies.find(tx, "s").id
    engine = open_engine(make_url(store.url))
    for statement, expected in STATEMENTS.items():
        with engine.connect() as connection, connection.begin() as began:
            changed = connection.execute(text(statement)).rowcount
            assert changed > 0, statement
            assert projection.compare(connection, study_id) == [expected], statement
            projection.rebuild(connection, study_id)
            assert projection.compare(connection, study_id) == [], statement
            began.rollback()
    engine.dispose()
