"""Studies that have ended and go on: extended, their failures tried again; clones."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage

from ridgeline.search.spec import InvalidSpec
from ridgeline.service import extending, reporting, sampling, studies, trials, workers
from ridgeline.service.errors import Conflict, InvalidInput, LimitExceeded
from ridgeline.service.external_protocol import CompleteRequest, SuggestedTrial, SuggestRequest
from ridgeline.service.lifecycle import FailReason, StudyState
from ridgeline.service.resources import ExtendRequest, RetryRequest, Study, Trial
from ridgeline.service.store.session import Store
from tests.conftest import ManualClock
from tests.parallel import in_parallel
from tests.service.factory import FakeWorker, external, grant_deadlines, post, spec, study_of


def extend(store: Store, *, max_open: int = 1_000, **values: Any) -> Study:
    with store.transaction() as tx:
        return extending.extend(tx, "s", ExtendRequest(**values), max_open=max_open)


def retry(store: Store, *reasons: FailReason, max_open: int = 1_000) -> Study:
    request = RetryRequest(reasons=reasons) if reasons else RetryRequest()
    with store.transaction() as tx:
        return extending.retry(tx, "s", request, max_open=max_open)


def clone(store: Store, changes: dict[str, Any], *, max_open: int = 1_000) -> Study:
    with store.transaction() as tx:
        changed = studies.changed_spec(tx, "s", changes)
        return studies.create(tx, changed, owner=None, local_datasets=(), max_open=max_open)


def tell(store: Store, verb: studies.Verb) -> None:
    with store.transaction() as tx:
        studies.apply_verb(tx, "s", verb)


def suggest(store: Store, count: int = 100) -> tuple[SuggestedTrial, ...]:
    return trials.suggest(store, "s", SuggestRequest(count=count)).trials


def end(store: Store, given: Iterable[SuggestedTrial], **values: Any) -> None:
    values = values or {"value": 0.5}
    with store.transaction() as tx:
        for trial in given:
            request = CompleteRequest.model_validate({"attempt": trial.attempt, **values})
            reporting.complete(tx, "s", trial.number, request, max_charges=1)


def end_all(store: Store) -> list[int]:
    """Train what there is to the end; the numbers of the trials."""
    numbers = []
    while given := suggest(store):
        end(store, given)
        numbers += [trial.number for trial in given]
    return numbers


def all_trials(store: Store) -> list[Trial]:
    with store.reading() as tx:
        return trials.list_page(tx, "s", page_size=1_000, cursor=None, state=None)[0]


def refused(error: pytest.ExceptionInfo[InvalidInput]) -> list[str]:
    return [field for field, _ in error.value.problems]


GRID: dict[str, Any] = {
    "sampler": {"name": "grid"},
    "space": {"x": {"type": "values", "values": [1, 2, 3, 4]}},
    "budget": {},
}


def test_a_study_that_has_ended_goes_on(store: Store) -> None:
    post(store, external())
    assert end_all(store) == [0, 1, 2, 3]
    extended = extend(store, trials=3)
    assert (extended.state, extended.num_trials) == (StudyState.QUEUED, 7)
    assert (extended.finished_at, extended.reason) == (
        None,
        "waits for a program to call trials:suggest",
    )
    assert extended.spec.num_trials == 7
    assert end_all(store) == [4, 5, 6]
    study = study_of(store)
    assert (study.state, study.trials.complete) == (StudyState.COMPLETED, 7)


def test_the_further_trials_are_those_of_a_study_that_large(store: Store) -> None:
    post(store, external())
    end_all(store)
    extend(store, trials=2)
    end_all(store)
    extended = [trial.config for trial in all_trials(store)]
    post(store, external("t", budget={"trials": 6}))
    given = trials.suggest(store, "t", SuggestRequest(count=6)).trials
    assert extended == [trial.config for trial in given]


def test_workers_train_them_too(store: Store) -> None:
    post(store, spec(budget={"trials": 2, "epochs": 3}))
    worker = FakeWorker(store, num_slots=2)
    worker.sync()
    worker.end_all()
    assert study_of(store).state is StudyState.COMPLETED
    extend(store, trials=1)
    (order,) = worker.sync().start
    assert order.trial == 2
    worker.end_all()
    assert study_of(store).state is StudyState.COMPLETED


def test_a_study_under_way_gets_more(store: Store) -> None:
    post(store, external())
    given = suggest(store, 1)
    assert extend(store, trials=2).state is StudyState.RUNNING
    tell(store, "pause")
    assert extend(store, trials=1).state is StudyState.PAUSED
    tell(store, "resume")
    end(store, given)
    assert end_all(store) == [1, 2, 3, 4, 5, 6]


def test_trials_of_a_stopped_study_come_on_top_of_those_it_has(store: Store) -> None:
    post(store, external(budget={"trials": 50}))
    end(store, suggest(store, 2))
    tell(store, "stop")
    assert study_of(store).state is StudyState.COMPLETED
    assert extend(store, trials=3).num_trials == 5
    assert end_all(store) == [2, 3, 4]


def test_a_study_that_is_stopping_goes_on(store: Store) -> None:
    post(store, external(budget={"trials": 50}))
    given = suggest(store, 2)
    tell(store, "stop")
    extended = extend(store, trials=1)
    assert (extended.state, extended.stopping, extended.num_trials) == ("RUNNING", False, 3)
    end(store, given)
    assert end_all(store) == [2]


def test_a_grid_is_extended_by_cells_it_has(store: Store) -> None:
    post(store, external(**{**GRID, "budget": {"trials": 2}}))
    with store.transaction() as tx:
        trials.enqueue(tx, "s", [{"x": 2}])
    assert end_all(store) == [0, 1, 2]
    with pytest.raises(InvalidInput, match="the grid has only 4 cells") as caught:
        extend(store, trials=3)
    assert refused(caught) == ["trials"]
    extend(store, trials=2)
    assert end_all(store) == [3, 4]
    assert [trial.grid_cell for trial in all_trials(store)] == [None, 0, 1, 2, 3]


def test_time_runs_on_from_the_extension(store: Store, clock: ManualClock) -> None:
    post(store, external(budget={"trials": 50, "seconds": 60}))
    end(store, suggest(store, 1))
    grant_deadlines(store)
    clock.advance(61)
    workers.expire(store)
    assert study_of(store).state is StudyState.COMPLETED
    clock.advance(1_000)
    with pytest.raises(InvalidInput, match="time is up") as caught:
        extend(store, trials=1)
    assert refused(caught) == ["seconds"]
    assert extend(store, seconds=30).spec.budget.seconds == 90
    given = suggest(store, 2)
    assert [trial.number for trial in given] == [1, 2]
    grant_deadlines(store)
    clock.advance(29)
    workers.expire(store)
    assert not study_of(store).stopping
    end(store, given)
    clock.advance(2)
    workers.expire(store)
    assert study_of(store).state is StudyState.COMPLETED


def test_time_that_was_left_is_left(store: Store, clock: ManualClock) -> None:
    post(store, external(budget={"trials": 1, "seconds": 60}))
    suggest_and_end = suggest(store)
    clock.advance(20)
    end(store, suggest_and_end)
    clock.advance(1_000)
    extend(store, trials=1)
    clock.advance(39)
    assert len(suggest(store)) == 1


@pytest.mark.parametrize(
    ("request_", "field"),
    [({}, "trials"), ({"seconds": 5.0}, "seconds"), ({"trials": 100_000}, "trials")],
)
def test_what_cannot_be_added(store: Store, request_: dict[str, Any], field: str) -> None:
    post(store, external())
    end_all(store)
    with pytest.raises(InvalidInput) as caught:
        extend(store, **request_)
    assert refused(caught) == [field]
    assert study_of(store).state is StudyState.COMPLETED


def test_time_alone_does_not_help_a_study_without_trials(store: Store) -> None:
    post(store, external(budget={"trials": 1, "seconds": 60}))
    end_all(store)
    with pytest.raises(InvalidInput, match="every trial of the budget") as caught:
        extend(store, seconds=60)
    assert refused(caught) == ["trials"]


def test_a_cancelled_study_stays_cancelled(store: Store) -> None:
    post(store, external())
    tell(store, "cancel")
    with pytest.raises(Conflict, match="clone it"):
        extend(store, trials=1)
    with pytest.raises(Conflict, match="clone it"):
        retry(store)


def test_unfinished_studies_are_limited(store: Store) -> None:
    post(store, external())
    end(store, suggest(store), state="FAIL", reason="crashed")
    post(store, external("t"))
    with pytest.raises(LimitExceeded):
        extend(store, trials=1, max_open=1)
    with pytest.raises(LimitExceeded):
        retry(store, max_open=1)
    with pytest.raises(LimitExceeded):
        clone(store, {"name": "u"}, max_open=1)


def test_a_reproducible_study_sees_as_far_as_before(store: Store) -> None:
    tpe: dict[str, Any] = {
        "sampler": {"name": "tpe", "seed": 3},
        "reproducible": True,
        "budget": {"trials": 20},
    }
    post(store, external(**tpe))
    end_all(store)
    assert extend(store, trials=20).spec.max_parallel == 2
    end_all(store)
    with store.reading() as tx:
        row = studies.find(tx, "s")
        for trial in all_trials(store):
            assert sampling.rederive(tx, row.id, trial.number).config == trial.config


def test_failures_become_new_trials(store: Store) -> None:
    post(store, external())
    bad, diverged, *good = suggest(store)
    end(store, [bad], state="FAIL", reason="crashed")
    end(store, [diverged], state="FAIL", reason="diverged")
    end(store, good)
    study = retry(store)
    assert (study.state, study.num_trials) == (StudyState.QUEUED, 5)
    assert retry(store).revision == study.revision, "repeating it changes nothing"
    (again,) = suggest(store)
    assert (again.number, again.config, again.seed) == (4, bad.config, bad.seed)
    end(store, [again], state="FAIL", reason="timeout")
    failed = all_trials(store)
    assert [trial.retry_of for trial in failed] == [None, None, None, None, 0]
    assert (failed[0].state, failed[0].reason) == ("FAIL", "crashed")
    retry(store, FailReason.DIVERGED, FailReason.TIMEOUT)
    assert [trial.config for trial in suggest(store)] == [diverged.config, bad.config]
    assert [trial.retry_of for trial in all_trials(store)][5:] == [1, 4]


def test_a_study_whose_trials_all_failed_can_still_be_completed(store: Store) -> None:
    post(store, external(budget={"trials": 2}))
    end(store, suggest(store), state="FAIL", reason="out_of_memory")
    assert study_of(store).state is StudyState.FAILED
    assert retry(store).reason == "waits for a program to call trials:suggest"
    assert end_all(store) == [2, 3]
    study = study_of(store)
    assert (study.state, study.trials.complete, study.trials.fail) == ("COMPLETED", 2, 2)


def test_failures_of_a_grid_are_tried_again(store: Store) -> None:
    post(store, external(**GRID))
    bad, *good = suggest(store)
    end(store, [bad], state="FAIL", reason="crashed")
    end(store, good)
    assert retry(store).num_trials == 5
    (again,) = suggest(store)
    assert again.config == bad.config
    end(store, [again])
    assert study_of(store).state is StudyState.COMPLETED


def test_a_stopped_study_gets_only_its_failures(store: Store) -> None:
    for grid in (False, True):
        post(store, external("s" if grid else "t", **(GRID if grid else {})))
    bad, good = suggest(store, 2)
    end(store, [bad], state="FAIL", reason="crashed")
    tell(store, "stop")
    with pytest.raises(Conflict, match="once it has ended"):
        retry(store)
    end(store, [good])
    retry(store)
    assert end_all(store) == [2]
    assert study_of(store).state is StudyState.COMPLETED


def test_failures_are_tried_again_when_time_is_up(store: Store, clock: ManualClock) -> None:
    post(store, external(budget={"trials": 50, "seconds": 60}))
    given = suggest(store, 2)
    grant_deadlines(store)
    clock.advance(61)
    workers.expire(store)
    end(store, given, state="FAIL", reason="crashed")
    retry(store)
    workers.expire(store)
    assert end_all(store) == [2, 3]
    assert study_of(store).state is StudyState.COMPLETED
    assert extend(store, trials=1, seconds=5).state is StudyState.QUEUED
    assert end_all(store) == [4]


def test_a_reproducible_study_is_retried_at_its_end(store: Store) -> None:
    post(store, external(reproducible=True))
    (bad,) = suggest(store, 1)
    end(store, [bad], state="FAIL", reason="crashed")
    with pytest.raises(Conflict, match="reproducible"):
        retry(store)
    end_all(store)
    retry(store)
    assert end_all(store) == [4]


def test_many_at_once_retry_a_failure_once(store: Store) -> None:
    post(store, external())
    bad, *_ = suggest(store)
    end(store, [bad], state="FAIL", reason="crashed")
    in_parallel(4, lambda: retry(store))
    assert [trial.number for trial in suggest(store)] == [4]


def test_readers_of_optunas_tables_see_all_of_it(store: Store) -> None:
    post(store, external())
    bad, *good = suggest(store)
    end(store, [bad], state="FAIL", reason="crashed")
    end(store, good)
    storage = RDBStorage(store.url.render_as_string(hide_password=False))
    reader = optuna.load_study(study_name="s", storage=storage)
    assert len(reader.trials) == 4
    retry(store)
    extend(store, trials=1)
    end_all(store)
    found = reader.trials
    assert [trial.state.name for trial in found] == ["FAIL"] + ["COMPLETE"] * 5
    assert found[4].user_attrs["retry_of"] == 0
    assert found[4].params == found[0].params
    assert reader.user_attrs["state"] == "COMPLETED"
    assert reader.user_attrs["budget_trials"] == 6
    storage.remove_session()
    storage.engine.dispose()


def test_a_clone_is_a_study_like_it(store: Store) -> None:
    post(store, external(budget={"trials": 2, "seconds": 60}))
    end_all(store)
    assert clone(store, {"name": "t"}).spec == external("t", budget={"trials": 2, "seconds": 60})
    changes = {
        "name": "u",
        "budget": {"trials": 9, "seconds": None},
        "space": {
            "x": {"type": "values", "values": [1, 2]},
            "y": {"type": "int", "low": 1, "high": 2},
        },
        "sampler": {"seed": 8},
    }
    cloned = clone(store, changes)
    assert (cloned.state, cloned.trials.complete) == (StudyState.QUEUED, 0)
    assert cloned.spec == external(
        "u",
        budget={"trials": 9},
        space=changes["space"],
        sampler={"name": "random", "seed": 8},
    )


def test_a_clone_is_checked_as_a_study_is(store: Store) -> None:
    post(store, external())
    with pytest.raises(Conflict, match="choose another name"):
        clone(store, {"name": "s"})
    with pytest.raises(InvalidSpec) as caught:
        clone(store, {"name": "t", "budget": {"trials": -1}, "sapce": {}})
    assert {field for field, _ in caught.value.problems} == {"budget.trials", "sapce"}
