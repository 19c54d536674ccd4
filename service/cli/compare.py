"""Comparing ways to train: a study for each arm, its winner again with fresh seeds, and a table.

All that is known stands in the service, in studies whose names follow from the comparison's.  So
the same command goes on where it was interrupted, and shows its result again once all is done.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ridgeline.search.comparison import ComparisonSpec, fresh_study, scores_by_seed, studies_of
from ridgeline.search.spec import StudySpec
from ridgeline.search.tasks.base import EngineTask
from ridgeline.service.cli import tables
from ridgeline.service.cli.environment import open_client
from ridgeline.service.cli.follow import follow
from ridgeline.service.cli.problems import Problem
from ridgeline.service.cli.study_file import ComparisonFile, load_comparison
from ridgeline.service.client import ApiError, Client
from ridgeline.service.lifecycle import RunState, StudyState
from ridgeline.service.resources import Run, Study

_VALIDATION, _TEST = "validation_", "test_"


def compare(
    file: Annotated[
        Path, typer.Argument(metavar="COMPARISON.YAML", help="The comparison's description.")
    ],
) -> None:
    """Compare ways to train: tune each, train the winners again with fresh seeds.

    Posts a study for each arm and waits for them, then one for each winner.  Ctrl-C leaves them
    running; the same command goes on from there.
    """
    from ridgeline.search import comparing  # the statistics, which the light installation has not

    described = load_comparison(file)
    spec = described.spec
    console = tables.console_of_stdout()
    with open_client() as client:
        try:
            searched = _ended(client, console, described, studies_of(spec))
            fresh = _ended(client, console, described, _fresh_studies(spec, searched))
            runs = {arm: _runs(client, study) for arm, study in fresh.items()}
        except KeyboardInterrupt as exc:
            typer.echo(f"\n{spec.name} goes on; the same command follows it.", err=True)
            raise typer.Exit(130) from exc
    any_study = next(iter(searched.values())).spec
    metric, direction = any_study.objective.metric, any_study.objective.direction
    test_metric = metric_on_test(any_study)
    tested, validated = (
        {arm: _scores(its, fresh[arm].spec, name) for arm, its in runs.items()}
        for name in (test_metric, metric)
    )
    means = [comparing.mean_of(arm, scores) for arm, scores in tested.items()]
    again = {arm: comparing.mean_of(arm, scores).value for arm, scores in validated.items()}
    in_search = {arm: study.best.value for arm, study in searched.items() if study.best}
    console.print(tables.arms_table(means, in_search, again, metric, test_metric))
    for without in (arm for arm in searched if arm not in fresh):
        why = searched[without].reason or "none of its trials came to its end"
        typer.echo(f"{without} has no winner: {why}.")
    for difference in comparing.differences(tested, direction):
        typer.echo(comparing.sentence(difference, test_metric))


def metric_on_test(spec: StudySpec) -> str:
    """What tells of rows that no choice was made by; a function has nothing but its one metric."""
    metric = spec.objective.metric
    if not isinstance(spec.definition, EngineTask):
        return metric
    return _TEST + metric.removeprefix(_VALIDATION)


def _fresh_studies(spec: ComparisonSpec, searched: Mapping[str, Study]) -> dict[str, StudySpec]:
    """Of the arms that have a winner."""
    fresh = {
        arm: fresh_study(spec, arm, study.spec, study.best.config)
        for arm, study in searched.items()
        if study.best is not None
    }
    if not fresh:
        raise Problem(f"{spec.name}: no trial of any arm came to its end")
    return fresh


def _ended(
    client: Client, console: Console, described: ComparisonFile, specs: Mapping[str, StudySpec]
) -> dict[str, Study]:
    """The studies by arm, posted where there is none yet, once all have ended.

    Raises:
        Problem: one of them was cancelled, or failed after some of its trials; its name is that of
            another study; or the service refuses one.
    """
    for arm, spec in specs.items():
        try:
            _ensure(client, spec)
        except ApiError as exc:
            if exc.status != HTTPStatus.UNPROCESSABLE_ENTITY or not exc.problems:
                raise
            raise described.refused(arm, exc.problems) from exc
    studies = follow(client, [spec.name for spec in specs.values()], console)
    for study in studies.values():
        has_nothing = study.state is StudyState.FAILED and study.best is None
        if study.state is not StudyState.COMPLETED and not has_nothing:
            why = f": {study.reason}" if study.reason else ""
            raise Problem(f"{study.name} is {study.state}{why}; without it nothing can be compared")
    return {arm: studies[spec.name] for arm, spec in specs.items()}


def _ensure(client: Client, spec: StudySpec) -> None:
    """Post a study, unless it is there already: who may only read sees what has ended, too."""
    try:
        there = client.study(spec.name)
    except ApiError as exc:
        if exc.status != HTTPStatus.NOT_FOUND:
            raise
        try:
            there = client.create_study(spec)
        except ApiError as refused:
            if refused.status != HTTPStatus.CONFLICT:
                raise
            there = client.study(spec.name)  # the same command, given twice at once
    if there.spec != spec:
        raise Problem(
            f"there is another study named {spec.name} already: give the comparison another "
            f"name, or delete that study with `ridgeline delete {spec.name}`"
        )


def _runs(client: Client, study: Study) -> list[Run]:
    return [run for trial in client.trials(study.name) for run in trial.runs]


def _scores(runs: Sequence[Run], study: StudySpec, metric: str) -> list[float | None]:
    """By seed; None of a run that did not come to its end."""
    complete = (run for run in runs if run.state is RunState.COMPLETE)
    return scores_by_seed(study, {run.replicate: run.metrics.get(metric) for run in complete})
