"""The report of a study: what was asked, what came of it, and how to repeat it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import metadata
from itertools import islice

from ridgeline.search.means import INTERVAL, mean
from ridgeline.search.spec import StudySpec
from ridgeline.service.curves import metric_groups
from ridgeline.service.reports.axes import value_in
from ridgeline.service.reports.document import Block, Code, Facts, Report, Section, Table, Text
from ridgeline.service.reports.findings import NUM_LISTED, Findings
from ridgeline.service.reports.learning import MOST_FIGURES, curves_figure
from ridgeline.service.reports.trial_figures import (
    history_figure,
    importance_figure,
    importance_of,
    map_figures,
    parallel_figure,
)
from ridgeline.service.reports.wording import (
    as_yaml,
    count,
    duration,
    listed,
    moment,
    number,
    user_text,
)
from ridgeline.service.resources import Interval
from ridgeline.service.spec_in_words import facts, purpose, searched
from ridgeline.service.store.rows import RunRow, TrialRow

_TEST = "test_"


def study_report(found: Findings) -> Report:
    """The report of a study as it stood when `found` was read."""
    study = found.study
    sections = (
        Section("result", "Result", list(_result(found))),
        Section("asked", "What was asked", list(_asked(study.spec))),
        Section("history", "History", list(_history(found))),
        Section("curves", "Learning curves", list(_curves(found))),
        Section("parameters", "Parameters", list(_parameters(found))),
        Section("failures", "Failed and pruned trials", list(_failures(found))),
        Section("repeat", "How to repeat it", list(_repeat(found))),
    )
    return Report(
        "Report of a study",
        study.name,
        _lead(found),
        [section for section in sections if section.blocks],
    )


def _lead(found: Findings) -> str:
    study, counts = found.study, found.study.trials
    by_state = {
        "complete": counts.complete,
        "pruned": counts.pruned,
        "failed": counts.fail,
        "running": counts.running,
        "waiting": counts.waiting,
    }
    told = ", ".join(f"{n:,} {state}" for state, n in by_state.items() if n) or "none begun"
    why = f" ({user_text(study.reason)})" if study.reason else ""
    return (
        f"The study is {study.state}{why}: {count(study.num_trials, 'trial')}, of them {told}. "
        f"Written on {moment(found.written_at)}, at revision {study.revision}."
    )


def _result(found: Findings) -> Iterator[Block]:
    study, best = found.study, found.best
    spec = study.spec
    metric = user_text(spec.objective.metric)
    if best is None or best.value is None:
        yield Text("No trial is complete, so there is no best one.")
        yield Facts(_times(found))
        return
    runs = found.runs[best.number]
    tests = _test_metrics(runs)
    if spec.trains_on_validation:
        yield from _result_on_test(found, best, runs, tests)
        return
    standing = study.best
    assert standing is not None, "there is a complete trial"
    seeds = f", the mean over {count(standing.num_seeds, 'seed')}" if standing.num_seeds > 1 else ""
    yield Text(
        f"Trial {best.number} is the best of {count(len(found.ranked), 'complete trial')}: its "
        f"{metric} is {number(standing.value)}{seeds}{_interval(standing.interval)}."
        + (f" With the same weights {_in_words(tests)}." if tests else "")
    )
    fresh = standing.fresh
    if fresh is not None and fresh.value is not None and fresh.selection_effect is not None:
        yield Text(
            f"Trained again with {spec.fresh_seeds} fresh seeds, which no choice was made by, its "
            f"{metric} is {number(fresh.value)}{_interval(fresh.interval)}. So its value in the "
            f"search is better by {number(fresh.selection_effect)}, the selection effect."
        )
    elif len(found.ranked) > 1:
        data = "other rows" if tests else "other seeds"
        yield Text(
            f"It was chosen for its {metric}, so this value is better than what to expect of "
            f"{data}." + (" Test data took no part in the choice." if tests else "")
        )
    yield _configuration("The best configuration", spec, best)
    if len(runs) > 1:
        yield _runs_table(f"The runs of trial {best.number}", metric, runs)
    yield Facts(_times(found))
    if len(found.ranked) > 1:
        yield _best_table(found)


def _result_on_test(
    found: Findings, trial: TrialRow, runs: Sequence[RunRow], tests: dict[str, float]
) -> Iterator[Block]:
    """Of a study whose validation rows have trained too: test rows alone judge it."""
    over = f", as means over {count(len(runs), 'run')}" if len(runs) > 1 else ""
    judged = f": {_in_words(tests)}{over}" if tests else ""
    yield Text(
        f"Trial {trial.number} is complete{judged}. It has trained on training and validation "
        "rows, so metrics of validation are left out: they say nothing of other rows."
    )
    yield _configuration("Its configuration", found.study.spec, trial)
    if len(runs) > 1:
        yield _runs_table(f"The runs of trial {trial.number}", None, runs)
    yield Facts(_times(found))


def _configuration(caption: str, spec: StudySpec, trial: TrialRow) -> Table:
    return Table(
        caption,
        ("parameter", "value", "searched"),
        [
            (name, value_in(trial.config, name), user_text(searched(parameter, str)))
            for name, parameter in spec.space.items()
        ],
        frozenset({1}),
    )


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    ends = f"{number(interval.low)} to {number(interval.high)}"
    return f" with the {INTERVAL} {ends}"


def _times(found: Findings) -> list[tuple[str, str]]:
    study = found.study
    rows = [("posted", moment(study.created_at))]
    if study.started_at is not None:
        end = study.finished_at if study.finished_at is not None else found.written_at
        # A clock that was set back between them tells nothing of how long it took.
        rows.append(("from start to end", duration(max(0.0, end - study.started_at))))
    rows.append(("device time", duration(study.device_seconds)))
    if study.owner is not None:
        rows.append(("owner", study.owner))
    return rows


def _runs_table(caption: str, metric: str | None, runs: Sequence[RunRow]) -> Table:
    """The runs of a trial; their values too, by `metric`, unless it is None."""
    names = sorted({name for run in runs for name in run.metrics or {} if name.startswith(_TEST)})
    rows = [
        (
            str(run.seed),
            run.state.lower() if run.reason is None else f"{run.state.lower()}: {run.reason}",
            *(() if metric is None else ("" if run.value is None else number(run.value),)),
            *(_cell(run, name) for name in names),
            "" if run.kept_epoch is None else str(run.kept_epoch),
            number(run.device_seconds),
        )
        for run in runs
    ]
    tests = [user_text(name) for name in names]
    values = () if metric is None else (metric,)
    columns = ("seed", "state", *values, *tests, "kept epoch", "device s")
    return Table(caption, columns, rows, frozenset({0, *range(2, len(columns))}))


def _best_table(found: Findings) -> Table:
    spec = found.study.spec
    trials = found.ranked[:NUM_LISTED]
    tests = [_test_metrics(found.runs[trial.number]) for trial in trials]
    names = sorted({name for its in tests for name in its})
    rows = [
        (
            str(trial.number),
            *(value_in(trial.config, name) for name in spec.space.names),
            number(trial.value or 0.0),
            *(number(its[name]) if name in its else "" for name in names),
        )
        for trial, its in zip(trials, tests, strict=True)
    ]
    shown = [user_text(name) for name in names]
    columns = ("trial", *spec.space.names, user_text(spec.objective.metric), *shown)
    return Table(
        f"The best {count(len(trials), 'trial')}", columns, rows, frozenset(range(len(columns)))
    )


def _asked(spec: StudySpec) -> Iterator[Block]:
    yield Text(purpose(spec, user_text))
    yield Table(
        "The space searched",
        ("parameter", "searched"),
        [(name, user_text(searched(its, str))) for name, its in spec.space.items()],
    )
    yield Facts(list(facts(spec).items()))


def _history(found: Findings) -> Iterator[Block]:
    if found.study.spec.trains_on_validation:
        return  # its values are of rows that were trained on
    figure = history_figure(found)
    if figure is not None:
        yield figure


def _curves(found: Findings) -> Iterator[Block]:
    if not found.curves:
        return
    spec = found.study.spec
    objective = spec.objective.metric
    names = {
        name
        for runs in found.curves.values()
        for run in runs
        for _, metrics in run
        for name in metrics
    }
    groups = metric_groups(names, objective, trains_on_validation=spec.trains_on_validation)
    if spec.trains_on_validation:
        yield Text("The validation rows were trained on, so no curve of these is shown.")
    drawn = (
        curves_figure(sides, found.curves, _kept(found) if objective in sides.values() else None)
        for sides in groups
    )
    yield from islice((figure for figure in drawn if figure is not None), MOST_FIGURES)
    if len(groups) > MOST_FIGURES:
        left_out = [user_text(name) for sides in groups[MOST_FIGURES:] for name in sides.values()]
        told = listed(left_out[:10]) + (" and others" if len(left_out) > 10 else "")
        yield Text(f"Without a figure are {told}.")


def _kept(found: Findings) -> tuple[int, float] | None:
    """The kept epoch and its value, where the best trial has one run to show it of."""
    if found.best is None:
        return None
    runs = found.runs[found.best.number]
    if len(runs) != 1 or runs[0].kept_epoch is None or runs[0].value is None:
        return None
    return runs[0].kept_epoch, runs[0].value


def _parameters(found: Findings) -> Iterator[Block]:
    shares = importance_of(found)
    for figure in (importance_figure(shares), parallel_figure(found, shares)):
        if figure is not None:
            yield figure
    yield from map_figures(found, shares)


def _failures(found: Findings) -> Iterator[Block]:
    counts = found.study.trials
    if counts.pruned:
        told = "1 trial was" if counts.pruned == 1 else f"{counts.pruned:,} trials were"
        yield Text(f"{told} pruned: ended early, since others were better at the same epoch.")
    if found.failures:
        yield Table(
            "Failed trials by reason",
            ("reason", "trials", "first", "what the first one said"),
            [
                (one.reason, str(one.count), str(one.number), user_text(one.error))
                for one in found.failures
            ],
            frozenset({1, 2}),
        )


def _repeat(found: Findings) -> Iterator[Block]:
    study = found.study
    spec = study.spec
    again = f"{study.name[:120]}-again"
    same = (
        "The same seeds give the same trials"
        if spec.reproducible or not spec.sampler.learns
        else "Which trials the sampler makes depends on which have ended before; with "
        "`reproducible: true` they are the same"
    )
    if study.past_spaces:
        same = "Its space has grown while it was searched, and what came of that is not repeated"
    yield Text(f"Save the spec below as {study.name}.yaml and post it under another name. {same}.")
    yield Code(
        f"ridgeline run {study.name}.yaml --name {again} --follow\n"
        f"ridgeline report {again} -o {again}.html",
        "Commands",
    )
    yield Code(
        as_yaml(spec.model_dump(mode="json", exclude_defaults=True)), f"The spec, {study.name}.yaml"
    )
    rows = [("Ridgeline", metadata.version("ridgeline"))]
    if study.data_fingerprint is not None:
        rows.append(("fingerprint of the data", study.data_fingerprint))
    if found.best is not None:
        runs = found.runs[found.best.number]
        programs = sorted({run.program for run in runs if run.program is not None})
        rows += [("program of the best trial", user_text(program)) for program in programs]
        seeds = ", ".join(str(run.seed) for run in runs)
        rows.append(("seed" if len(runs) == 1 else "seeds", seeds))
    yield Facts(rows)


def _test_metrics(runs: Sequence[RunRow]) -> dict[str, float]:
    """The mean over a trial's runs of each metric on test data that all of them have."""
    of_runs = [run.metrics or {} for run in runs]
    names = sorted(name for name in of_runs[0] if name.startswith(_TEST)) if of_runs else []
    return {
        name: mean([metrics[name] for metrics in of_runs])
        for name in names
        if all(name in metrics for metrics in of_runs)
    }


def _in_words(metrics: dict[str, float]) -> str:
    return listed([f"{user_text(name)} is {number(value)}" for name, value in metrics.items()])


def _cell(run: RunRow, metric: str) -> str:
    value = (run.metrics or {}).get(metric)
    return "" if value is None else number(value)
