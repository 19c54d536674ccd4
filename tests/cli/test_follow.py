"""Following studies, with a clock and a service that the test holds."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, cast

import pytest
from rich.console import Console

from ridgeline.search.spec import StudySpec, parse_spec
from ridgeline.service.api.examples import ANSWERS
from ridgeline.service.cli.follow import (
    PATIENCE_SECONDS,
    POLL_SECONDS,
    follow,
    follow_comparison,
)
from ridgeline.service.cli.tables import Pace, studies_table, study_lines, trials_table
from ridgeline.service.client import ApiError, Client, Unreachable
from ridgeline.service.comparison_resources import Comparison
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.resources import BestTrial, Study, Trial, TrialCounts

SPEC = StudySpec.model_validate(
    {
        "name": "s",
        "task": {"name": "external"},
        "space": {"x": {"type": "float", "low": 0, "high": 1}},
        "sampler": {"name": "random"},
        "objective": {"metric": "loss", "direction": "minimize"},
        "budget": {"trials": 40},
    }
)


def study(state: str, complete: int, name: str = "s") -> Study:
    return Study(
        name=name,
        state=StudyState(state),
        reason="no worker is connected" if state == "QUEUED" else None,
        stopping=False,
        spec=SPEC,
        num_trials=40,
        trials=TrialCounts(complete=complete),
        mean_epoch=None,
        best=BestTrial(number=3, value=0.875, config={"x": 0.5}) if complete else None,
        device_seconds=0.0,
        data_fingerprint=None,
        owner=None,
        revision=complete,
        optuna_study_id=None,
        projection_error=None,
        deadline_at=None,
        created_at=0.0,
        started_at=None,
        finished_at=None,
    )


class Service:
    """A service and a clock: each look at a study gives the next answer."""

    def __init__(self, *answers: Study | Exception) -> None:
        self.answers: Iterator[Study | Exception] = iter(answers)
        self.seconds = 0.0

    def study(self, name: str) -> Study:
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        assert answer.name == name
        return answer

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def follow(self, *names: str, terminal: bool = False) -> tuple[dict[str, Study], str]:
        out = io.StringIO()
        console = Console(file=out, force_terminal=terminal, width=120)
        ended = follow(
            cast(Client, self), names, console, sleep=self.sleep, clock=lambda: self.seconds
        )
        return ended, out.getvalue()


def test_without_a_terminal_there_is_a_line_now_and_then_and_at_each_state() -> None:
    running = [study("RUNNING", done) for done in range(1, 25)]
    service = Service(study("QUEUED", 0), *running, study("COMPLETED", 40))
    ended, out = service.follow("s")
    assert ended["s"].state is StudyState.COMPLETED
    lines = out.splitlines()
    assert lines[0] == "s: QUEUED, 0/40 trials: no worker is connected"
    assert lines[1].startswith("s: RUNNING, 1/40 trials, best 0.875 (trial 3)")
    assert lines[-1].startswith("s: COMPLETED, 40/40 trials, best 0.875 (trial 3)")
    assert len(lines) == 5  # 24 looks at a running study, half a second apart
    assert "120 trials/min, about 10 s left" in lines[3]


def test_what_was_pruned_or_failed_is_counted() -> None:
    counts = TrialCounts(complete=20, pruned=5, fail=1)
    running = study("RUNNING", 20).model_copy(update={"trials": counts})
    _, out = Service(running, study("COMPLETED", 40)).follow("s")
    assert out.startswith("s: RUNNING, 26/40 trials (5 pruned, 1 failed), best 0.875 (trial 3)")
    _, out = Service(running, study("COMPLETED", 40)).follow("s", terminal=True)
    assert "26/40 (5 pruned, 1 failed)" in out


def test_values_of_rows_that_were_trained_on_are_no_best_ones() -> None:
    spec = parse_spec(
        {
            "name": "s",
            "task": {"name": "mlp", "dataset": "digits", "split": {"train_on": "train+validation"}},
            "space": {"learning_rate": {"type": "values", "values": [0.01]}},
            "sampler": {"name": "grid"},
            "budget": {"trials": 1},
            "objective": {"metric": "validation_accuracy", "direction": "maximize"},
        }
    )
    done = study("COMPLETED", 1).model_copy(update={"spec": spec})
    for terminal in (False, True):
        _, out = Service(done).follow("s", terminal=terminal)
        assert "COMPLETED" in out
        assert "0.875" not in out
    trial = Trial.model_validate(ANSWERS["list_trials"]["trials"][0])
    metrics = {"validation_accuracy": 0.875, "test_accuracy": 0.75}
    trial = trial.model_copy(
        update={
            "value": 0.875,
            "config": {"learning_rate": 0.01},
            "runs": [run.model_copy(update={"metrics": metrics}) for run in trial.runs],
        }
    )
    shown = io.StringIO()
    console = Console(file=shown, width=120)
    console.print(studies_table([done]), trials_table(done, [trial]), *study_lines(done))
    assert "0.75" in shown.getvalue()
    assert "metrics of validation are left out" in shown.getvalue()
    assert "0.875" not in shown.getvalue()


def test_on_a_terminal_there_is_a_table() -> None:
    service = Service(study("RUNNING", 1), study("COMPLETED", 40, "t"), study("CANCELLED", 2))
    ended, out = service.follow("s", "t", terminal=True)
    assert [study.state for study in ended.values()] == ["CANCELLED", "COMPLETED"]
    assert "2/40" in out
    assert "CANCELLED" in out


def test_a_service_that_restarts_is_waited_for() -> None:
    gone = Unreachable("cannot reach it")
    service = Service(study("RUNNING", 1), *[gone] * 100, study("COMPLETED", 40))
    ended, _ = service.follow("s")
    assert ended["s"].state is StudyState.COMPLETED


def test_a_service_that_stays_away_is_an_error() -> None:
    gone = Unreachable("cannot reach it")
    service = Service(*[gone] * int(PATIENCE_SECONDS / POLL_SECONDS + 2))
    with pytest.raises(Unreachable):
        service.follow("s")


def test_a_study_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ApiError):
        Service(ApiError(404, "Not Found", "there is no study named s")).follow("s")


@pytest.mark.parametrize(
    ("looks", "rate"),
    [
        ([(0, 5)], None),
        ([(0, 5), (1, 5)], None),
        ([(0, 5), (1, 5), (2, 6)], 30.0),
        ([(0, 0), (10, 1), (100, 1), (110, 21)], 12.0),
    ],
)
def test_the_pace_is_that_of_the_last_half_minute(
    looks: list[tuple[float, int]], rate: Any
) -> None:
    pace = Pace()
    for now, done in looks:
        pace.see(done, now)
    assert pace.trials_per_minute == rate


def test_a_comparison_that_is_paused_says_how_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    done = Comparison.model_validate(ANSWERS["get_comparison"])
    paused = done.model_copy(update={"state": StudyState.PAUSED})
    answers = iter([paused, paused, done])
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(Client, "comparison", lambda client, name: next(answers))
    out = io.StringIO()
    with Client("http://127.0.0.1:1") as client:
        found = follow_comparison(client, "small", Console(file=out, width=120))
    assert found == done
    told = "small is PAUSED; `ridgeline comparison resume small` has it go on"
    assert out.getvalue().count(told) == 1
