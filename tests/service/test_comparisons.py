"""Comparisons go on by themselves, and their states follow from those of their studies."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from ridgeline.search.comparison import fresh_study, parse_comparison, studies_of
from ridgeline.search.spec import InvalidSpec
from ridgeline.search.tasks.data_root import Folders
from ridgeline.service import comparison_views, comparisons, extending, projection, studies
from ridgeline.service.comparison_resources import Comparison
from ridgeline.service.comparisons import Terms
from ridgeline.service.errors import Conflict, InvalidInput, LimitExceeded, NotFound, Unavailable
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.protocol import RunOrder
from ridgeline.service.reports.comparison_findings import gather_comparison
from ridgeline.service.resources import ExtendRequest, ExtendStudyRequest, RetryRequest, Study
from ridgeline.service.store.session import DatabaseClock, Store
from tests.parallel import in_parallel
from tests.service.factory import FakeWorker, cut_off_after, ended, post, spec, study_of, value_of

SPEC: dict[str, Any] = {
    "name": "c",
    "base": {
        "task": {"name": "mlp", "dataset": "digits"},
        "space": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True}},
        "sampler": {"name": "random", "seed": 7},
        "budget": {"trials": 2, "epochs": 3},
    },
    "arms": {"none": {}, "l2": {}},
    "replicates": 3,
}
TERMS = Terms(Folders(), max_open=100)

COMPLETED, CANCELLED, FAILED = StudyState.COMPLETED, StudyState.CANCELLED, StudyState.FAILED
PAUSED, QUEUED, RUNNING = StudyState.PAUSED, StudyState.QUEUED, StudyState.RUNNING


def create(store: Store, *, terms: Terms = TERMS, **changes: Any) -> Comparison:
    parsed = parse_comparison({**SPEC, **changes})
    with store.transaction() as tx:
        return comparisons.create(tx, parsed, owner=None, terms=terms)


def get(store: Store) -> Comparison:
    with store.reading() as tx:
        return comparisons.get(tx, "c")


def tell(store: Store, verb: comparisons.Verb) -> Comparison:
    with store.transaction() as tx:
        return comparisons.apply_verb(tx, "c", verb)


def tell_study(store: Store, name: str, verb: studies.Verb) -> None:
    with store.transaction() as tx:
        studies.apply_verb(tx, name, verb)


def extend(store: Store, trials: int = 2) -> Comparison:
    with store.transaction() as tx:
        return comparisons.extend(tx, "c", ExtendRequest(trials=trials), max_open=100)


def add_arms(store: Store, arms: dict[str, Any]) -> Comparison:
    with store.transaction() as tx:
        return comparisons.add_arms(tx, "c", arms, terms=TERMS)


def train(store: Store, how: Callable[[RunOrder], str] = lambda order: "complete") -> None:
    """Train all that there is, each run to an end by its order; test scores follow the seed."""
    worker = FakeWorker(store, num_slots=20)
    worker.sync()
    while worker.held:
        worker.sync(ended=[_end(order, how(order)) for order in worker.held.values()])
    with store.transaction() as tx:
        tx.workers.update(worker.id, state="GONE")


def _end(order: RunOrder, outcome: str) -> Any:
    if outcome != "complete":
        return ended(order, outcome)
    gain = 0.1 if ".l2" in order.study else 0.0
    metrics = {
        "validation_accuracy": value_of(order),
        "test_accuracy": 0.5 + gain + 0.01 * order.replicate,
    }
    return ended(order, metrics=metrics)


def advance(store: Store) -> Comparison:
    comparisons.advance_all(store)
    return get(store)


def test_searches_come_first_then_winners_with_fresh_seeds(store: Store) -> None:
    created = create(store)
    assert (created.state, created.result) == (QUEUED, None)
    assert [arm.name for arm in created.arms] == ["none", "l2"]
    assert [arm.search.name for arm in created.arms] == ["c-search.none", "c-search.l2"]
    assert advance(store) == get(store), "nothing has ended"
    train(store)
    searched = get(store)
    assert searched.state is RUNNING, "winners are about to be trained again"
    assert searched.arm_states == {"none": RUNNING, "l2": RUNNING}
    advanced = advance(store)
    for arm in advanced.arms:
        assert arm.fresh is not None
        assert arm.winner is not None
        assert arm.winner == arm.search.best
        assert arm.fresh.name == f"c-fresh.{arm.name}"
        assert arm.fresh.spec.space.cell(0) == arm.winner.config
        assert arm.fresh.spec.replicates == 3
        assert arm.fresh.data_fingerprint == arm.search.data_fingerprint
    assert (advanced.state, advanced.finished_at) == (RUNNING, None)
    train(store)
    done = get(store)
    assert (done.state, done.reason) == (COMPLETED, None)
    assert done.finished_at is not None
    assert done.result is not None
    none, l2 = done.result.arms
    assert none.scores == pytest.approx((0.5, 0.51, 0.52))
    assert l2.mean == pytest.approx(0.61)
    assert done.arms[0].winner is not None
    assert none.in_search == done.arms[0].winner.value
    (difference,) = done.result.differences
    assert (difference.arm, difference.other, difference.num_pairs) == ("none", "l2", 3)
    assert difference.value == pytest.approx(-0.1)
    assert difference.sentence.startswith("none ")
    assert advance(store) == done


def test_intervals_are_shown_within_what_the_metric_can_be(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = {"c-fresh.none": (1.0, 0.99, 1.0), "c-fresh.l2": (0.0, 0.01, 0.9)}

    def end(order: RunOrder, outcome: str) -> Any:
        its = scores.get(order.study, (0.5,))[order.replicate]
        metrics = {"validation_accuracy": value_of(order), "test_accuracy": its}
        return ended(order, metrics=metrics)

    monkeypatch.setattr("tests.service.test_comparisons._end", end)
    create(store)
    train(store)
    advance(store)
    train(store)
    result = get(store).result
    assert result is not None
    none, l2 = (arm.interval for arm in result.arms)
    assert none is not None
    assert l2 is not None
    assert 0.98 < none.low < none.high == 1
    assert (l2.low, l2.high) == (0, 1)
    (difference,) = result.differences
    assert difference.interval is not None
    assert -1 < difference.interval.low < 0
    assert difference.interval.high == 1
    assert difference.verdict == "open"
    assert "to +1, 3 seeds; the interval holds 0." in difference.sentence


def trained_on(study: Study) -> str:
    on: str = study.spec.task.model_dump()["split"]["train_on"]
    return on


def test_winners_may_train_on_validation_rows_too(store: Store) -> None:
    arms: dict[str, Any] = {"none": {}, "early_stopping": {}}
    created = create(store, arms=arms, train_on="train+validation")
    assert created.spec.train_on == "train+validation"
    assert {trained_on(arm.search) for arm in created.arms} == {"train"}
    train(store)
    for arm in advance(store).arms:
        assert arm.fresh is not None
        spec = arm.fresh.spec
        assert trained_on(arm.fresh) == "train+validation"
        assert spec.early_stopping is None
        assert spec.budget.epochs == (3 if arm.name == "none" else 2), "the epoch that was kept"
    train(store)
    result = get(store).result
    assert result is not None
    assert result.train_on == "train+validation"
    for one in result.arms:
        assert one.again is None, "the validation rows were trained on"
        assert one.scores == pytest.approx((0.5, 0.51, 0.52))
    assert advance(store).result == result


def test_an_arm_is_compared_as_soon_as_it_is_done(store: Store) -> None:
    create(store)
    tell_study(store, "c-search.l2", "pause")
    train(store)
    advance(store)
    train(store)
    found = get(store)
    assert found.arm_states == {"none": COMPLETED, "l2": PAUSED}
    assert (found.state, found.reason) == (PAUSED, "paused; resume it to go on")
    assert found.result is not None
    assert [one.arm for one in found.result.arms] == ["none"]
    assert found.result.differences == ()


def test_a_queued_comparison_says_what_it_waits_for(store: Store) -> None:
    assert "no worker is connected" in str(create(store).reason)


def test_of_many_api_processes_one_trains_a_winner_again(store: Store) -> None:
    create(store)
    train(store)
    url = store.url.render_as_string(hide_password=False)

    def advance_one() -> None:
        other = Store(url, clock=DatabaseClock(), project=projection.project)
        with closing(other):
            comparisons.advance_all(other)

    in_parallel(3, advance_one)
    with store.reading() as tx:
        found, _ = studies.list_page(tx, page_size=100, cursor=None)
    assert sorted(study.name for study in found) == [
        *("c-fresh.l2", "c-fresh.none", "c-search.l2", "c-search.none")
    ]
    train(store)
    assert get(store).state is COMPLETED


@pytest.mark.parametrize("num_transactions", [0, 1])
def test_what_a_killed_api_left_is_gone_on_with(store: Store, num_transactions: int) -> None:
    create(store)
    train(store)
    with cut_off_after(store, num_transactions), pytest.raises(Unavailable):
        comparisons.advance_all(store)
    assert sum(arm.fresh is not None for arm in get(store).arms) == num_transactions
    advance(store)
    train(store)
    done = get(store)
    assert done.state is COMPLETED
    assert all(arm.fresh and arm.fresh.trials.complete == 1 for arm in done.arms)


def test_an_arm_that_cannot_go_on_keeps_no_other_waiting(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(store)
    train(store)

    def fresh(comparison: Any, arm: str, *others: Any) -> Any:
        if arm == "none":
            raise InvalidSpec([("task.name", "is not installed any more")])
        return fresh_study(comparison, arm, *others)

    monkeypatch.setattr(comparisons, "fresh_study", fresh)
    with pytest.raises(InvalidSpec):
        comparisons.advance_all(store)
    none, l2 = get(store).arms
    assert none.fresh is None
    assert l2.fresh is not None


def test_an_arm_whose_trials_all_fail_has_no_winner(store: Store) -> None:
    create(store, arms=["none", "l2", "l1"])
    train(store, lambda order: "diverged" if ".l1" in order.study else "complete")
    advance(store)
    train(store)
    found = get(store)
    assert found.state is COMPLETED
    assert found.arm_states == {"none": COMPLETED, "l2": COMPLETED, "l1": FAILED}
    assert (found.arms[2].reason, found.arms[2].fresh) == (
        "every trial failed; 2 diverged",
        None,
    )
    assert found.result is not None
    assert len(found.result.differences) == 1


def test_without_a_winner_a_comparison_has_failed(store: Store) -> None:
    create(store)
    train(store, lambda order: "diverged")
    found = advance(store)
    assert (found.state, found.result) == (FAILED, None)
    assert found.reason == "no trial of any arm came to its end: every trial failed; 2 diverged"
    extend(store)
    assert get(store).state is QUEUED
    train(store)
    advance(store)
    train(store)
    assert get(store).state is COMPLETED


def test_a_failed_run_leaves_the_others_to_compare(store: Store) -> None:
    create(store)
    train(store)
    advance(store)
    train(store, lambda order: "diverged" if order.replicate == 1 else "complete")
    found = get(store)
    assert found.state is COMPLETED
    assert found.result is not None
    assert found.result.arms[0].scores[1] is None
    assert found.result.differences[0].num_pairs == 2


def test_of_a_winner_that_is_retried_each_seed_counts_once(store: Store) -> None:
    create(store)
    train(store)
    advance(store)
    train(store, lambda order: "failed" if order.replicate == 1 else "complete")
    result = get(store).result
    assert result is not None
    assert result.arms[0].scores[1] is None
    with store.transaction() as tx:
        extending.retry(tx, "c-fresh.none", RetryRequest(), max_open=100)
    train(store)
    result = get(store).result
    assert result is not None
    assert result.arms[0].scores[1] is not None
    with store.reading() as tx:
        row = tx.studies.find("c-fresh.none")
        assert row is not None
        runs = comparison_views.runs_by_seed(tx, row)
        found = gather_comparison(tx, "c")
    assert [(run.replicate, run.state) for run in runs] == [
        (replicate, "COMPLETE") for replicate in range(len(result.arms[0].scores))
    ]
    assert len(found.curves["none"]) <= len(runs)


def test_winners_may_fail_with_fresh_seeds(store: Store) -> None:
    create(store)
    train(store)
    advance(store)
    train(store, lambda order: "diverged")
    found = get(store)
    assert (found.state, found.result) == (FAILED, None)
    assert found.reason == "no winner came to its end with fresh seeds"


def test_a_cancelled_study_takes_its_arm_out(store: Store) -> None:
    create(store)
    tell_study(store, "c-search.none", "cancel")
    train(store)
    advance(store)
    train(store)
    found = get(store)
    assert found.arm_states == {"none": CANCELLED, "l2": COMPLETED}
    assert found.arms[0].reason == "c-search.none is CANCELLED, which leaves the arm out for good"
    assert found.state is COMPLETED
    assert extend(store).arm_states == {"none": CANCELLED, "l2": QUEUED}


@pytest.fixture
def left_out(store: Store) -> Comparison:
    """One of whose arms the study of fresh seeds was cancelled; the other is done."""
    create(store)
    train(store)
    advance(store)
    tell_study(store, "c-fresh.none", "cancel")
    train(store)
    found = advance(store)
    assert (found.state, found.arm_states["none"]) == (COMPLETED, CANCELLED)
    assert "until the comparison is extended, or resumed" in str(found.arms[0].reason)
    return found


def _ends_with_both_arms(store: Store, fresh: str) -> None:
    found = advance(store)
    assert found.arms[0].fresh is not None
    assert (found.arms[0].fresh.name, found.arms[0].fresh.state) == (fresh, QUEUED)
    train(store)
    found = advance(store)
    assert found.arm_states == {"none": COMPLETED, "l2": COMPLETED}
    assert found.result is not None
    assert len(found.result.differences) == 1


def test_resuming_one_that_has_ended_trains_a_cancelled_winner_again(
    store: Store, left_out: Comparison
) -> None:
    resumed = tell(store, "resume")
    assert (resumed.state, resumed.arm_states["none"]) == (RUNNING, RUNNING)
    _ends_with_both_arms(store, "c-fresh.none.2")
    assert get(store).arms[1].fresh == left_out.arms[1].fresh
    with store.reading() as tx:
        assert studies.get(tx, "c-fresh.none").state is CANCELLED, "what was done is kept"
    assert tell(store, "resume").state is COMPLETED, "whoever asks again starts nothing"
    assert advance(store) == get(store)


@pytest.mark.parametrize("has_another_winner", [False, True])
def test_extending_one_trains_a_cancelled_winner_again(
    store: Store, left_out: Comparison, has_another_winner: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(order: RunOrder, outcome: str) -> Any:
        gain = 1 if has_another_winner else -1
        metrics = {"validation_accuracy": value_of(order) + gain, "test_accuracy": 0.5}
        return ended(order, metrics=metrics, value=value_of(order) + gain)

    monkeypatch.setattr("tests.service.test_comparisons._end", end)
    extend(store)
    train(store)
    before, after = left_out.arms[0].winner, advance(store).arms[0].winner
    assert (before != after) == has_another_winner
    _ends_with_both_arms(store, "c-fresh.none.2")


def test_a_cancelled_winner_stays_out_while_the_others_are_paused_and_resumed(
    store: Store,
) -> None:
    create(store)
    train(store)
    advance(store)
    tell_study(store, "c-fresh.none", "cancel")
    tell(store, "pause")
    tell(store, "resume")
    train(store)
    assert advance(store).arm_states == {"none": CANCELLED, "l2": COMPLETED}


def test_with_all_studies_cancelled_nothing_can_be_compared(store: Store) -> None:
    create(store)
    for arm in ("none", "l2"):
        tell_study(store, f"c-search.{arm}", "cancel")
    found = advance(store)
    assert found.state is FAILED
    assert found.reason == (
        "c-search.none is CANCELLED, which leaves the arm out for good; without it nothing can be "
        "compared"
    )
    with pytest.raises(Conflict, match="every arm of c was cancelled"):
        extend(store)


def test_arms_are_added_where_an_earlier_version_took_a_name_in_the_base(store: Store) -> None:
    create(store)
    with store.transaction() as tx:
        row = tx.comparisons.find("c")
        assert row is not None
        spec = row.spec.model_dump(mode="json")
        tx.comparisons.update(row.id, spec={**spec, "base": {**spec["base"], "name": "mine"}})
    added = add_arms(store, {"l1": {}})
    assert added.arm_states["l1"] is QUEUED
    assert "name" not in added.spec.base


def test_a_paused_comparison_waits(store: Store) -> None:
    create(store)
    assert tell(store, "pause").arm_states == {"none": PAUSED, "l2": PAUSED}
    assert tell(store, "pause").state is PAUSED
    train(store)
    assert get(store).arms[0].search.trials.complete == 0
    assert tell(store, "resume").state is QUEUED
    train(store)
    tell(store, "pause")
    waiting = advance(store)
    assert (waiting.state, waiting.arm_states["none"]) == (PAUSED, PAUSED)
    assert waiting.arms[0].fresh is None, "a winner is trained again once it is resumed"
    tell(store, "resume")
    assert advance(store).arms[0].fresh is not None
    assert [arm.fresh and arm.fresh.state for arm in tell(store, "pause").arms] == [PAUSED] * 2
    tell(store, "resume")
    train(store)
    assert tell(store, "pause").state is COMPLETED, "whoever asks again is not refused"


def test_what_is_added_while_it_is_paused_waits_too(store: Store) -> None:
    create(store)
    train(store)
    tell(store, "pause")
    found = extend(store)
    assert found.arm_states == {"none": PAUSED, "l2": PAUSED}
    found = add_arms(store, {"l1": {}})
    assert (found.arm_states["l1"], found.state) == (PAUSED, PAUSED)
    assert tell(store, "resume").arm_states["l1"] is QUEUED


def test_it_is_told_to_pause_also_where_its_arms_were_one_by_one(store: Store) -> None:
    create(store)
    for arm in ("none", "l2"):
        tell_study(store, f"c-search.{arm}", "pause")
    assert tell(store, "pause").state is PAUSED
    assert add_arms(store, {"dropout": {}}).state is PAUSED, "the new arm waits too"


def test_it_is_told_to_resume_also_where_one_arm_runs(store: Store) -> None:
    create(store)
    tell_study(store, "c-search.none", "pause")
    resumed = tell(store, "resume")
    assert {arm.search.state for arm in resumed.arms} == {QUEUED}


def test_what_no_arm_can_be_extended_by_names_the_arms(store: Store) -> None:
    rates = {"learning_rate": {"type": "values", "values": [0.1, 0.2]}}
    base = {**SPEC["base"], "space": rates, "sampler": {"name": "grid"}, "budget": {"epochs": 3}}
    wide = {"space": {"batch_size": {"type": "values", "values": [8, 16, 32]}}}
    create(store, base=base, arms={"none": {}, "wide": wide, "deep": {"task": {"hidden": [8, 8]}}})
    with pytest.raises(InvalidInput) as caught:
        extend(store, 1)
    cells = "the grid has only {} cells; post another comparison with more points or values to try"
    assert caught.value.problems == [
        ("trials", f"{cells.format(2)} more (arms none, deep)"),
        ("trials", f"{cells.format(6)} more (arm wide)"),
    ]
    with (
        pytest.raises(InvalidInput, match=r"give trials or seconds$"),
        store.transaction() as tx,
    ):
        comparisons.extend(tx, "c", ExtendRequest(), max_open=100)


def test_no_arm_has_another_budget_than_the_others(store: Store) -> None:
    create(store)
    with pytest.raises(Conflict, match="part of the comparison c, whose arms"):
        tell_study(store, "c-search.none", "stop")
    with (
        pytest.raises(Conflict, match="extend that as a whole"),
        store.transaction() as tx,
    ):
        extending.extend_alone(tx, "c-search.none", ExtendStudyRequest(trials=1), max_open=100)


def test_what_one_arm_retries_is_no_budget_of_others(store: Store) -> None:
    created = create(store)
    planned = created.arms[0].search.num_trials
    train(store, lambda order: "failed" if ".none" in order.study else "complete")
    with store.transaction() as tx:
        extending.retry(tx, "c-search.none", RetryRequest(), max_open=100)
    train(store)
    advance(store)
    extended = extend(store, 1)
    assert extended.spec.base["budget"]["trials"] == planned + 1
    added = add_arms(store, {"l1": {}})
    assert [arm.search.num_trials for arm in added.arms[1:]] == [planned + 1] * 2


@pytest.mark.parametrize("verb", ["stop", "cancel"])
def test_a_study_that_was_cut_short_is_not_taken_in(store: Store, verb: studies.Verb) -> None:
    post(store, studies_of(parse_comparison(SPEC))["none"])
    tell_study(store, "c-search.none", verb)
    with pytest.raises(Conflict, match="a study that was cancelled or stopped"):
        create(store)


def test_a_cancelled_comparison_is_over(store: Store) -> None:
    create(store)
    train(store, lambda order: "complete")
    found = tell(store, "cancel")
    assert (found.state, found.arm_states["none"]) == (CANCELLED, CANCELLED)
    assert advance(store).arms[0].fresh is None
    assert tell(store, "cancel").state is CANCELLED
    for verb in ("pause", "resume"):
        with pytest.raises(Conflict, match="cancelled for good"):
            tell(store, verb)
    with pytest.raises(Conflict, match="cancelled for good"):
        extend(store)
    with pytest.raises(Conflict, match="cancelled for good"):
        add_arms(store, {"l1": {}})


def test_its_studies_are_cancelled_with_it(store: Store) -> None:
    create(store)
    FakeWorker(store).sync()
    found = tell(store, "cancel")
    assert {arm.search.state for arm in found.arms} == {CANCELLED}
    assert found.finished_at is not None


def test_one_that_has_ended_cannot_be_cancelled(store: Store) -> None:
    create(store)
    for _ in range(2):
        train(store)
        advance(store)
    with pytest.raises(Conflict, match="it has ended"):
        tell(store, "cancel")


def better(order: RunOrder) -> str:
    """All trials but the first two of the arm `none` diverge, so that its winner stays."""
    return "diverged" if ".none" in order.study and order.trial > 1 else "complete"


def test_an_extended_arm_trains_another_winner_again(store: Store) -> None:
    create(store)
    train(store)
    advance(store)
    train(store)
    before = get(store)
    extended = extend(store, trials=20)
    assert extended.spec.base["budget"] == {"trials": 22, "epochs": 3}
    assert extended.arm_states == {"none": QUEUED, "l2": QUEUED}
    assert extended.result is None, "the searches are not alike until both have ended"
    train(store, better)
    advance(store)
    train(store)
    found = get(store)
    assert found.state is COMPLETED
    none, l2 = found.arms
    assert none.fresh == before.arms[0].fresh
    assert l2.winner != before.arms[1].winner
    assert l2.winner == l2.search.best
    assert l2.fresh is not None
    assert l2.fresh.name == "c-fresh.l2.2"
    assert l2.winner is not None
    assert l2.fresh.spec.space.cell(0) == l2.winner.config
    assert study_of(store, "c-fresh.l2").state is COMPLETED, "what was measured stays"


def test_runs_of_a_winner_that_is_none_any_more_are_cancelled(store: Store) -> None:
    create(store)
    train(store)
    advance(store)
    extend(store, trials=20)
    for arm in ("none", "l2"):
        tell_study(store, f"c-fresh.{arm}", "pause")
    train(store, better)
    advance(store)
    assert study_of(store, "c-fresh.none").state is PAUSED
    assert study_of(store, "c-fresh.l2").state is CANCELLED


def test_an_arm_that_is_added_later_has_the_budget_of_the_others(store: Store) -> None:
    create(store)
    train(store)
    advance(store)
    extend(store, trials=3)
    train(store)
    advance(store)
    train(store)
    assert get(store).state is COMPLETED
    found = add_arms(store, {"wide": {"task": {"hidden": [64]}}})
    assert [arm.name for arm in found.arms] == ["none", "l2", "wide"]
    wide = found.arms[2].search
    assert wide.spec.budget == found.arms[0].search.spec.budget
    assert wide.data_fingerprint == found.arms[0].search.data_fingerprint is not None
    assert found.state is RUNNING
    assert found.result is not None, "what is known of the others stays"
    train(store)
    advance(store)
    train(store)
    done = get(store)
    assert done.state is COMPLETED
    assert done.result is not None
    assert len(done.result.differences) == 3
    with pytest.raises(Conflict, match="has an arm named wide already"):
        add_arms(store, {"wide": {}})
    with pytest.raises(InvalidSpec, match=r"arms\.bad\.budget"):
        add_arms(store, {"bad": {"budget": {"trials": 1}}})


def test_an_added_arm_trains_on_the_data_of_the_others(store: Store) -> None:
    create(store)
    train(store)
    FakeWorker(store, fingerprint="cd" * 32)
    found = add_arms(store, {"l1": {}})
    assert found.arms[2].search.data_fingerprint == found.arms[0].search.data_fingerprint


def test_an_arm_is_not_to_be_cancelled_for_a_deletion_that_is_refused(store: Store) -> None:
    create(store)
    with pytest.raises(Conflict, match="delete that as a whole"), store.transaction() as tx:
        studies.delete(tx, "c-search.none")


def test_what_is_deleted_is_gone_with_its_studies(store: Store) -> None:
    create(store)
    with pytest.raises(Conflict, match="c is QUEUED; cancel it before"), store.transaction() as tx:
        comparisons.delete(tx, "c")
    train(store)
    advance(store)
    tell(store, "cancel")
    with pytest.raises(Conflict, match="part of the comparison c"), store.transaction() as tx:
        studies.delete(tx, "c-search.none")
    with store.transaction() as tx:
        assert comparisons.delete(tx, "c").state is CANCELLED
    with store.reading() as tx:
        assert studies.list_page(tx, page_size=9, cursor=None) == ([], None)
        with pytest.raises(NotFound):
            comparisons.get(tx, "c")
    assert create(store).state is QUEUED


def test_a_name_is_given_once(store: Store) -> None:
    create(store)
    with pytest.raises(Conflict, match="there is a comparison named c already"):
        create(store)


def test_studies_that_are_there_are_taken_in(store: Store) -> None:
    parsed = parse_comparison(SPEC)
    post(store, studies_of(parsed)["l2"])
    train(store)
    found = create(store)
    assert found.arms[1].search.state is COMPLETED
    winner = found.arms[1].search.best
    assert winner is not None
    post(store, fresh_study(parsed, "l2", found.arms[1].search.spec, winner.config))
    fresh = advance(store).arms[1].fresh
    assert fresh is not None
    assert fresh.name == "c-fresh.l2"


def test_another_study_of_that_name_is_in_the_way_of_a_search(store: Store) -> None:
    post(store, spec("c-search.l2"))
    with pytest.raises(Conflict, match=r"another study named c-search\.l2 already"):
        create(store)
    with store.reading() as tx:
        assert tx.comparisons.find("c") is None
        assert tx.studies.find("c-search.none") is None


def test_another_study_of_that_name_makes_way_for_fresh_seeds(store: Store) -> None:
    post(store, spec("c-fresh.l2", budget={"trials": 1}))
    create(store)
    train(store)
    fresh = advance(store).arms[1].fresh
    assert fresh is not None
    assert fresh.name == "c-fresh.l2.2"


def test_a_study_belongs_to_one_comparison(store: Store) -> None:
    create(store)
    with store.transaction() as tx:
        tx.comparisons.update(1, name="d")
    with pytest.raises(Conflict, match=r"another study named c-search\.none"):
        create(store)


def test_what_no_worker_can_train_is_told_where_it_stands(store: Store) -> None:
    base = {**SPEC["base"], "task": {"name": "mlp", "dataset": "nowhere"}}
    with pytest.raises(InvalidInput) as caught:
        create(store, base=base)
    ((field, reason),) = caught.value.problems
    assert field == "base.task.dataset"
    assert "no worker has a data set 'nowhere'" in reason


def test_its_studies_count_as_open_ones(store: Store) -> None:
    with pytest.raises(LimitExceeded):
        create(store, terms=Terms(Folders(), max_open=1))
    create(store, terms=Terms(Folders(), max_open=2))
    train(store)
    post(store, spec("other"))
    advance(store)
    assert get(store).arms[0].fresh is not None, "it takes the place of a search"


def test_lists_show_the_newest_first(store: Store) -> None:
    for name in "abc":
        create(store, name=name)
    with store.reading() as tx:
        first, cursor = comparisons.list_page(tx, page_size=2, cursor=None)
        last, end = comparisons.list_page(tx, page_size=2, cursor=cursor)
        assert tx.comparisons.num_all() == 3
    assert [one.name for one in (*first, *last)] == ["c", "b", "a"]
    assert end is None
    assert first[0].arm_states == {"none": QUEUED, "l2": QUEUED}


def test_a_name_of_the_other_kind_is_told(store: Store) -> None:
    create(store)
    with store.reading() as tx:
        with pytest.raises(NotFound, match="no study named c; a comparison has that name"):
            studies.get(tx, "c")
        name = get(store).arms[0].search.name
        with pytest.raises(NotFound, match=f"no comparison named {name}; a study has that name"):
            comparisons.get(tx, name)
        with pytest.raises(NotFound, match=r"no comparison named d$"):
            comparisons.get(tx, "d")
