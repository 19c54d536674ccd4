"""Studies and trials as people read them: tables, and lines of progress."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from rich import box
from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ridgeline.search.means import INTERVAL
from ridgeline.search.ranges import Value
from ridgeline.search.space import Config
from ridgeline.service.comparison_resources import (
    Comparison,
    ComparisonResult,
    ComparisonSummary,
)
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.measures_in_words import label, value_text
from ridgeline.service.resources import BestTrial, Explanation, Interval, Study, Trial
from ridgeline.service.texts import printable

_PACE_WINDOW_SECONDS = 30.0

_STATE_STYLES = {
    StudyState.QUEUED: "yellow",
    StudyState.RUNNING: "cyan",
    StudyState.PAUSED: "yellow",
    StudyState.COMPLETED: "green",
    StudyState.FAILED: "red",
    StudyState.CANCELLED: "red",
}


def plain_console(**options: Any) -> Console:
    """A console that takes nobody's text for markup or emoji codes; `options` as rich has them."""
    return Console(markup=False, emoji=False, highlight=False, **options)


def console_of_stdout() -> Console:
    """Wide where no terminal shows it, so that no column is cut."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return plain_console(width=None if is_terminal else 200)


class Pace:
    """How fast a study's trials end, from what was seen over the last half minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def see(self, num_done: int, now_seconds: float) -> None:
        self._seen.append((now_seconds, num_done))
        while len(self._seen) > 2 and self._seen[1][0] <= now_seconds - _PACE_WINDOW_SECONDS:
            self._seen.popleft()

    @property
    def trials_per_minute(self) -> float | None:
        """None before two looks, or while nothing has ended between them."""
        if len(self._seen) < 2:
            return None
        (began, before), (now, after) = self._seen[0], self._seen[-1]
        return 60 * (after - before) / (now - began) if after > before and now > began else None

    def seconds_left(self, num_left: int) -> float | None:
        rate = self.trials_per_minute
        return None if rate is None else 60 * num_left / rate


def num_done(study: Study) -> int:
    return study.trials.complete + study.trials.pruned + study.trials.fail


def num_planned(study: Study) -> int:
    """The trials it was to have; of a closed study, `num_trials` is what it came to."""
    if study.state is StudyState.CANCELLED:
        return max(study.num_trials, study.spec.num_trials)
    return study.num_trials


def progress_line(study: Study, pace: Pace) -> str:
    """One line for a log: how far the study is, its best so far, its pace."""
    parts = [
        f"{study.name}: {study.state}",
        f"{num_done(study)}/{num_planned(study)} trials{_without_value(study)}",
        *_best_so_far(study),
        *_pace(study, pace),
    ]
    return ", ".join(parts) + (f": {waits}" if (waits := waits_for(study)) else "")


def waits_for(study: Study) -> str | None:
    """Why a study does not begin or go on.

    A running one waits for its turn now and then, which is nothing to tell.
    """
    return study.reason if study.state in (StudyState.QUEUED, StudyState.PAUSED) else None


def progress_table(rows: Iterable[tuple[Study, Pace]]) -> Table:
    """The same for several studies, with bars, for a terminal; 80 columns are enough."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for index in range(7):
        table.add_column(no_wrap=index != 3)  # the counts take a second line where it is narrow
    for study, pace in rows:
        style = _STATE_STYLES[study.state]
        done, best = num_done(study), _best(study)
        rate, left = pace.trials_per_minute, pace.seconds_left(study.num_trials - done)
        table.add_row(
            study.name,
            Text(study.state, style),
            ProgressBar(study.num_trials, done, 12, complete_style=style, finished_style=style),
            f"{done}/{study.num_trials}{_without_value(study)}",
            waits_for(study) or ("" if best is None else f"best {best.value:.6g}"),
            "" if rate is None or not left else f"{rate:.3g}/min",
            "" if not left else f"{_duration(left)} left",
        )
    return table


def studies_table(studies: Iterable[Study]) -> Table:
    table = _table("study", "state", "trials", "best", "sampler", "task")
    for study in studies:
        best = _best(study)
        table.add_row(
            study.name,
            Text(study.state + _archived(study), _STATE_STYLES[study.state]),
            f"{num_done(study)}/{num_planned(study)}",
            "" if best is None else f"{best.value:.6g}",
            study.spec.sampler.name,
            _task(study),
        )
    return table


def _task(study: Study) -> str:
    return _named({"name": study.spec.task.name, "dataset": study.spec.dataset})


def _named(task: Mapping[str, Any]) -> str:
    return f"{task['name']} on {task['dataset']}" if task.get("dataset") else str(task["name"])


def study_lines(study: Study) -> list[str]:
    """What a study is and how it stands, one fact a line."""
    spec, counts = study.spec, study.trials
    by_state = ", ".join(
        f"{n} {'failed' if state == 'fail' else state}"
        for state, n in counts.model_dump().items()
        if n
    )
    is_stopping = study.stopping and study.finished_at is None
    lines = [
        f"{study.name} is {study.state}{' and stopping' if is_stopping else ''}{_archived(study)}"
        + (f": {study.reason}" if study.reason else ""),
        f"task {_task(study)}, "
        f"sampler {spec.sampler.name}, to {spec.objective.direction} {spec.objective.metric}",
        f"{num_done(study)} of {num_planned(study)} trials done ({by_state or 'none begun'}), "
        f"{study.device_seconds:.1f} s of device time",
    ]
    lines += [
        f"warm start: {source.num_trials} trials of {source.study}, by "
        + ", ".join(source.parameters)
        for source in study.sources
    ]
    if (best := _best(study)) is not None:
        lines += _standing(best)
    elif study.best is not None:
        lines.append(
            "trained on training and validation rows, so metrics of validation are left out: they "
            "say nothing of other rows"
        )
    if study.projection_error:
        lines.append(f"the copy in Optuna's tables is behind: {study.projection_error}")
    return lines


def _best(study: Study) -> BestTrial | None:
    """The best trial whose value tells something: not one of rows that were trained on."""
    return None if study.spec.trains_on_validation else study.best


def _standing(best: BestTrial) -> list[str]:
    """What several seeds say of the best trial."""
    lines = []
    if best.num_seeds > 1:
        mean = f"trial {best.number} is best with {best.value:.6g}, the mean over {best.num_seeds}"
        lines.append(f"{mean} seeds{_between(best.interval)}")
    fresh = best.fresh
    if fresh is None:
        return lines
    if fresh.value is None or fresh.selection_effect is None:
        return [*lines, f"its fresh seeds are those of trial {fresh.trial}, which is {fresh.state}"]
    told = f"trial {best.number} with fresh seeds: {fresh.value:.6g}{_between(fresh.interval)}"
    effect = f"{fresh.selection_effect:.4g}"
    return [*lines, f"{told}; in the search it is better by {effect}, the selection effect"]


def _between(interval: Interval | None) -> str:
    return "" if interval is None else f" ({INTERVAL} {interval.low:.6g} to {interval.high:.6g})"


def best_trials(study: Study, trials: Iterable[Trial], *, limit: int) -> list[Trial]:
    """The best complete trials of the search, best first; ties go to the smaller number."""
    sign = -1 if study.spec.objective.direction == "maximize" else 1
    valued = [
        (sign * trial.value, trial)
        for trial in trials
        if trial.value is not None and trial.repeats is None
    ]
    valued.sort(key=lambda pair: (pair[0], pair[1].number))
    return [trial for _, trial in valued[:limit]]


def trials_table(study: Study, trials: Sequence[Trial]) -> Table:
    """Trials with their configuration, their value, and what their kept weights reach on test.

    The value is left out where it is of rows that were trained on.
    """
    names = study.spec.space.names
    tests = sorted({name for trial in trials for name in test_metrics(trial)})
    is_told = not study.spec.trains_on_validation
    values = [study.spec.objective.metric] if is_told else []
    table = _table("trial", *names, *values, *tests)
    for trial in trials:
        found = test_metrics(trial)
        table.add_row(
            str(trial.number),
            *_config_cells(trial.config, names),
            *(["" if trial.value is None else f"{trial.value:.6g}"] if is_told else []),
            *(f"{found[name]:.6g}" if name in found else "" for name in tests),
        )
    return table


def known_trials_table(explanation: Explanation) -> Table:
    """The trials nearest to the one explained, among those whose values its sampler knew."""
    names = list(explanation.config)
    table = _table("nearest trial", "distance", *names, "value")
    for known in explanation.nearest:
        table.add_row(
            str(known.number),
            f"{known.distance:.3f}",
            *_config_cells(known.config, names),
            f"{known.value:.6g}",
        )
    return table


def _config_cells(config: Config, names: Iterable[str]) -> Iterator[str]:
    """The values of these parameters; nothing where the configuration lacks one."""
    return (printable(show_value(config[name])) if name in config else "" for name in names)


def test_metrics(trial: Trial) -> dict[str, float]:
    """The mean over a trial's runs of each metric on the test part."""
    names = {name for run in trial.runs for name in run.metrics if name.startswith("test_")}
    return {
        name: mean(run.metrics[name] for run in trial.runs if name in run.metrics)
        for name in sorted(names)
    }


def config_text(trial: Trial | Explanation) -> str:
    """A trial's configuration on one line; of an enqueued one, what the sampler has chosen."""
    text = ", ".join(f"{name}={show_value(value)}" for name, value in trial.config.items())
    given = trial.config if trial.given is None else trial.given
    chosen = [name for name in trial.config if name not in given]
    return f"{text} (the sampler chose {', '.join(chosen)})" if chosen else text


def arms_table(result: ComparisonResult) -> Table:
    """The arms of a comparison, with what fresh seeds made of their winners.

    The mean of the metric that the searches went by is not shown where arms are compared by the
    same, as those of a function are, or where winners have trained on the validation rows.
    """
    metric, test_metric = result.metric, result.test_metric
    is_told = metric != test_metric and result.train_on == "train"
    validated = [f"{metric}, fresh seeds"] if is_told else []
    tested = f"{test_metric}, fresh seeds"
    best = f"{metric}, best of the search"
    table = _table("arm", best, *validated, tested, INTERVAL, "runs")
    for one in result.arms:
        interval = one.interval
        num_failed = one.scores.count(None)
        failed = f" ({num_failed} failed)" if num_failed else ""
        table.add_row(
            one.arm,
            f"{one.in_search:.4g}",
            *([_number(one.again)] if is_told else []),
            _number(one.mean),
            "" if interval is None else f"{interval.low:.4g} to {interval.high:.4g}",
            f"{len(one.scores) - num_failed}{failed}",
        )
    return table


def comparisons_table(comparisons: Iterable[ComparisonSummary]) -> Table:
    table = _table("comparison", "state", "arms", "task")
    for one in comparisons:
        arms = ", ".join(one.arm_states)
        state = Text(one.state, _STATE_STYLES[one.state])
        table.add_row(one.name, state, arms, _named(one.spec.base.get("task", {})))
    return table


def comparison_lines(comparison: Comparison) -> list[str]:
    """How a comparison and its arms stand, one fact a line."""
    return [
        f"{comparison.name} is {comparison.state}" + _because(comparison.reason),
        *(f"arm {arm.name} is {arm.state}" + _because(arm.reason) for arm in comparison.arms),
    ]


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else ""


def measures_table(result: ComparisonResult) -> Table:
    """What each arm's winner looks like: means over the runs with fresh seeds."""
    arms = {arm.arm: arm.measures for arm in result.arms}
    name = result.metric.removeprefix("validation_")
    fits = (f"{name}_gap", "near_zero_share", "inputs_kept", "dead_share", "linear_share")
    shown = [measure for measure in fits if any(measure in its for its in arms.values())]
    table = _table("arm", *map(label, shown))
    for arm, its in arms.items():
        table.add_row(arm, *(value_text(measure, its.get(measure)) for measure in shown))
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def show_value(value: Value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _archived(study: Study) -> str:
    return ", archived" if study.archived else ""


def _without_value(study: Study) -> str:
    """How many of the trials that are done never came to their end."""
    counts = {"pruned": study.trials.pruned, "failed": study.trials.fail}
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f" ({told})" if told else ""


def _best_so_far(study: Study) -> list[str]:
    best = _best(study)
    return [] if best is None else [f"best {best.value:.6g} (trial {best.number})"]


def _pace(study: Study, pace: Pace) -> list[str]:
    rate = pace.trials_per_minute
    left = pace.seconds_left(study.num_trials - num_done(study))
    if rate is None or not left:
        return []
    return [f"{rate:.3g} trials/min", f"about {_duration(left)} left"]


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6_000 else f"{seconds / 3_600:.1f} h"


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(printable(column), overflow="fold")
    return table
