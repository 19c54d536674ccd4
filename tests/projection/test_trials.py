"""What Optuna's readers find of the trials, while they go on and when they have ended."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from tests.measures import RELU, TANH
from tests.projection.book import CONFIG, METRIC, Book, run_through, spec
from tests.projection.conftest import OpenReader


def test_a_complete_trial_is_all_there(book: Book, open_reader: OpenReader) -> None:
    with book.transaction() as page:
        page.add(0, replicates=2, grid_cell=4)
        for replicate in (0, 1):
            page.start(0, replicate)
            page.report(0, {1: 0.5, 2: 0.75 + replicate / 8}, replicate)
    with book.transaction() as page:
        for replicate, value in ((0, 0.75), (1, 0.875)):
            page.end(
                0,
                replicate,
                value=value,
                kept_epoch=2 + replicate,
                metrics={METRIC: value, "test_accuracy": 0.5 + replicate / 4},
                device_seconds=1.5,
                charges=1,
            )
        finished_at = page.trial(0).finished_at
        started_at = page.trial(0).started_at
    (trial,) = open_reader().trials
    assert trial.number == 0
    assert trial.state is TrialState.COMPLETE
    assert trial.value == 0.8125
    assert trial.intermediate_values == {1: 0.5, 2: 0.8125}
    assert trial.params == {
        "learning_rate": 0.01,
        "l2": 0.001,
        "l2_zero": False,
        "batch_size": 32,
        "optimizer": "adam",
    }
    assert trial.distributions["learning_rate"] == FloatDistribution(1e-4, 1e-1, log=True)
    assert trial.distributions["batch_size"] == IntDistribution(16, 64, log=True)
    assert isinstance(trial.distributions["optimizer"], CategoricalDistribution)
    assert trial.user_attrs == {
        "origin": "sampler",
        "sampler": "tpe/1",
        "sampler_seed": 5,
        "seen_revision": 3,
        "grid_cell": 4,
        "seeds": [100, 101],
        METRIC: 0.8125,
        "test_accuracy": 0.625,
        "kept_epoch": 2.5,
        "device_seconds": 3.0,
        "attempts": 2,
        "charges": 2,
    }
    # Optuna hands times out as naive local time.
    assert trial.datetime_start is not None
    assert trial.datetime_complete is not None
    assert trial.datetime_start.timestamp() == started_at
    assert trial.datetime_complete.timestamp() == finished_at


def test_what_is_seen_of_the_weights_of_all_runs_is_told(
    book: Book, open_reader: OpenReader
) -> None:
    seen = [RELU.model_dump(), RELU.model_dump(), TANH.model_dump(), None]
    with book.transaction() as page:
        for number in (0, 1):
            page.add(number, replicates=2)
            for replicate in (0, 1):
                page.start(number, replicate)
                metrics = {METRIC: 0.5, "near_zero_share": 0.75}
                measures = seen[2 * number + replicate]
                page.end(number, replicate, value=0.5, metrics=metrics, measures=measures)
    both, one = (trial.user_attrs for trial in open_reader().trials)
    assert (both["inputs_kept"], both["accuracy_gap"], both["dead_share"]) == (3, 0.25, 0.25)
    assert both["near_zero_share"] == 0.75, "the metric, of which there is one already"
    assert not {"accuracy_gap", "linear_share"} & one.keys()


def test_a_penalty_of_zero_has_no_logarithm(book: Book, open_reader: OpenReader) -> None:
    with book.transaction() as page:
        page.add(0, config={**CONFIG, "l2": 0.0})
    (trial,) = open_reader().trials
    assert "l2" not in trial.params
    assert trial.params["l2_zero"] is True


@pytest.mark.parametrize(
    ("end", "state", "value"),
    [
        ({"state": "FAIL", "reason": "crashed", "error": "x" * 5_000}, TrialState.FAIL, None),
        ({"state": "PRUNED", "value": 0.25}, TrialState.PRUNED, 0.25),
        ({"state": "PRUNED"}, TrialState.PRUNED, None),
    ],
)
def test_other_ends(
    book: Book,
    open_reader: OpenReader,
    end: dict[str, object],
    state: TrialState,
    value: float | None,
) -> None:
    with book.transaction() as page:
        page.add(0)
        page.start(0)
        page.report(0, {1: 0.5})
    with book.transaction() as page:
        page.end(0, **end)  # type: ignore[arg-type]
    (trial,) = open_reader().trials
    assert (trial.state, trial.value) == (state, value)
    assert trial.intermediate_values == {1: 0.5}
    assert trial.user_attrs.get("reason") == end.get("reason")
    assert len(trial.user_attrs.get("error", "")) == (1_000 if "error" in end else 0)


def test_a_failed_trial_has_no_mean_of_the_runs_that_survived(
    book: Book, open_reader: OpenReader
) -> None:
    with book.transaction() as page:
        page.add(0, replicates=2)
        for replicate in (0, 1):
            page.start(0, replicate)
        page.end(0, 0, value=0.9, kept_epoch=3, metrics={"test_accuracy": 0.9})
        page.end(0, 1, state="FAIL", reason="diverged")
    (trial,) = open_reader().trials
    assert trial.state is TrialState.FAIL
    assert trial.value is None
    assert trial.user_attrs["reason"] == "diverged"
    assert not {"test_accuracy", "kept_epoch"} & set(trial.user_attrs)


def test_a_metric_cannot_take_the_name_of_another_attribute(
    book: Book, open_reader: OpenReader
) -> None:
    with book.transaction() as page:
        page.add(0)
        page.start(0)
        page.end(0, value=1.0, metrics={"seeds": 1.0, "reason": 2.0, "charges": 3.0, "loss": 4.0})
    (trial,) = open_reader().trials
    assert trial.user_attrs["seeds"] == [100]
    assert trial.user_attrs["charges"] == 0
    assert trial.user_attrs["loss"] == 4.0
    assert "reason" not in trial.user_attrs


def test_ids_rise_with_numbers_in_whatever_chunks(
    book: Book, open_reader: OpenReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ridgeline.service.projection.trials.CHUNK", 3)
    with book.transaction() as page:
        for number in range(4):
            page.add(number)
    with book.transaction() as page:
        run_through(page, range(4, 13), epochs=2)
        page.start(0)
    trials = open_reader().trials
    assert [trial.number for trial in trials] == list(range(13))
    ids = [trial._trial_id for trial in trials]
    assert ids == sorted(ids)
    assert [trial.state for trial in trials] == [
        TrialState.RUNNING,
        *[TrialState.WAITING] * 3,
        *[TrialState.COMPLETE] * 9,
    ]
    assert all(trial.intermediate_values for trial in trials[4:])


class TestSteps:
    """Step e is written once every run has passed e: reported it or a later one, or ended."""

    def test_a_step_waits_for_every_run(self, book: Book, open_reader: OpenReader) -> None:
        with book.transaction() as page:
            page.add(0, replicates=3)
            page.start(0, 0)
            page.report(0, {1: 0.1, 2: 0.2, 3: 0.3}, 0)
        study = open_reader()
        assert study.trials[0].intermediate_values == {}
        with book.transaction() as page:
            page.start(0, 1)
            page.start(0, 2)
            page.report(0, {1: 0.3, 2: 0.4}, 1)
            page.report(0, {1: 0.2}, 2)
        assert study.trials[0].intermediate_values == {1: pytest.approx(0.2)}
        with book.transaction() as page:
            page.report(0, {2: 0.6}, 2)
        assert study.trials[0].intermediate_values == pytest.approx({1: 0.2, 2: 0.4})

    def test_a_run_that_stopped_early_counts_up_to_its_end(
        self, book: Book, open_reader: OpenReader
    ) -> None:
        with book.transaction() as page:
            page.add(0, replicates=2)
            page.start(0, 0)
            page.start(0, 1)
            page.report(0, {1: 0.25, 2: 0.5, 3: 0.75, 4: 1.0}, 0)
            page.report(0, {1: 0.75, 2: 1.0}, 1)
        study = open_reader()
        assert study.trials[0].intermediate_values == {1: 0.5, 2: 0.75}
        with book.transaction() as page:
            page.end(0, 1, value=1.0)
        assert study.trials[0].intermediate_values == {1: 0.5, 2: 0.75, 3: 0.75, 4: 1.0}

    def test_a_run_that_starts_again_takes_its_steps_back(
        self, book: Book, open_reader: OpenReader
    ) -> None:
        with book.transaction() as page:
            page.add(0)
            page.start(0)
            page.report(0, {1: 0.1, 2: 0.2, 3: 0.3})
        study = open_reader()
        assert set(study.trials[0].intermediate_values) == {1, 2, 3}
        with book.transaction() as page:
            page.hand_back(0, keep_epochs=1)
        assert study.trials[0].intermediate_values == {1: 0.1}
        with book.transaction() as page:
            page.hand_back(0)
        assert study.trials[0].intermediate_values == {}
        with book.transaction() as page:
            page.start(0)
            page.report(0, {1: 0.5})
            page.end(0, value=0.5)
        assert study.trials[0].intermediate_values == {1: 0.5}
        assert study.trials[0].user_attrs["attempts"] == 2

    def test_reports_replaced_between_two_projections(
        self, book: Book, open_reader: OpenReader
    ) -> None:
        with book.transaction() as page:
            page.add(0)
            page.start(0)
            page.report(0, {1: 0.1, 2: 0.2})
        with book.transaction(project=False) as page:
            page.hand_back(0)
        with book.transaction() as page:
            page.start(0)
            page.report(0, {1: 0.6, 2: 0.7, 3: 0.8})
        assert open_reader().trials[0].intermediate_values == {1: 0.6, 2: 0.7, 3: 0.8}

    def test_a_run_that_ended_with_its_reports_gone(
        self, book: Book, open_reader: OpenReader
    ) -> None:
        with book.transaction() as page:
            page.add(0, replicates=2)
            for replicate in (0, 1):
                page.start(0, replicate)
                page.report(0, {1: 0.5 + replicate / 4, 2: 0.75 + replicate / 4}, replicate)
        study = open_reader()
        assert study.trials[0].intermediate_values == {1: 0.625, 2: 0.875}
        with book.transaction() as page:
            page.hand_back(0, 1)
            page.end(0, 1, state="FAIL", reason="cancelled")
        assert study.trials[0].intermediate_values == {1: 0.5, 2: 0.75}

    def test_reports_out_of_order_and_without_the_metric(
        self, book: Book, open_reader: OpenReader
    ) -> None:
        with book.transaction() as page:
            page.add(0)
            page.start(0)
            page.report(0, {10: 1.0})
        with book.transaction() as page:
            page.report(0, {5: 0.5})
            page.report(0, {7: 0.7}, metric="something_else")
        assert open_reader().trials[0].intermediate_values == {5: 0.5, 10: 1.0}


def test_a_live_reader_sees_each_finished_trial_once_as_it_stays(
    book: Book, open_reader: OpenReader
) -> None:
    with book.transaction() as page:
        for number in range(3):
            page.add(number)
    study = open_reader()
    seen: dict[int, optuna.trial.FrozenTrial] = {}

    def look() -> list[int]:
        """Numbers of trials finished since the last look; the others are as they were."""
        finished = {t.number: t for t in study.trials if t.state.is_finished()}
        assert all(finished[number] == trial for number, trial in seen.items())
        new = sorted(set(finished) - set(seen))
        seen.update(finished)
        return new

    with book.transaction() as page:
        for number in range(3):
            page.start(number)
        page.report(2, {1: 0.5})
    assert look() == []
    with book.transaction() as page:
        page.end(2, value=0.5, metrics={"test_accuracy": 0.25})
    assert look() == [2]
    with book.transaction() as page:
        run_through(page, range(3, 6), epochs=2)
        page.report(0, {1: 0.125})
    assert look() == [3, 4, 5]
    with book.transaction() as page:
        page.end(0, value=0.125)
        page.end(1, state="FAIL", reason="timeout")
    assert look() == [0, 1]
    assert [seen[n] for n in sorted(seen)] == open_reader().trials


def test_studies_do_not_touch_each_other(book: Book, open_reader: OpenReader) -> None:
    other = Book(book.engine, spec("other"))
    with book.transaction() as page:
        run_through(page, range(2), epochs=2)
    with other.transaction() as page:
        run_through(page, range(3), epochs=3)
    with book.transaction() as page:
        run_through(page, range(2, 4), epochs=2)
    assert [t.number for t in open_reader("digits").trials] == [0, 1, 2, 3]
    assert [len(t.intermediate_values) for t in open_reader("other").trials] == [3, 3, 3]
