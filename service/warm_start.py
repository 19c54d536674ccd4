"""Taking over trials of other studies when a study is created: from then on they are its own."""

from __future__ import annotations

from ridgeline.search.space import Config
from ridgeline.search.spec import StudySpec
from ridgeline.search.warm_start import (
    MAX_TRIALS,
    SourceTrial,
    fingerprint,
    most_telling,
    problem_of,
    shared_parameters,
)
from ridgeline.service.errors import InvalidInput
from ridgeline.service.store.rows import SourceRow, StudyRow
from ridgeline.service.store.session import Transaction

_MAX_READ = 4 * MAX_TRIALS
"""Trials of a source whose configurations are read, of up to a hundred thousand."""

Taken = tuple[SourceRow, list[SourceTrial]]


def take(tx: Transaction, spec: StudySpec, like: StudyRow | None = None) -> list[Taken]:
    """What a study takes over of its sources, as they are now.

    Args:
        like: the study that it is a clone of; of the sources that this one names too it takes what
            that one took, whatever has become of them since.

    Raises:
        InvalidInput: a source is not there, is of another task or metric, or tells nothing.
    """
    known: dict[str, Taken] = {}
    if like is not None and _alike(like.spec, spec):
        known = {row.study: (row, [*trials]) for row, trials in tx.sources.trials_of(like.id)}
    taken: list[Taken] = []
    problems: list[tuple[str, str]] = []
    for index, name in enumerate(spec.warm_start):
        found = _again(spec, known[name]) if name in known else _anew(tx, spec, name)
        if isinstance(found, str):
            problems.append((f"warm_start.{index}", found))
        else:
            taken.append(found)
    if problems:
        raise InvalidInput(problems)
    return taken


def is_whole(tx: Transaction, study: StudyRow) -> bool:
    """Whether what a study has taken over is there, as it was."""
    found = tx.sources.trials_of(study.id)
    return tuple(row.study for row, _ in found) == study.spec.warm_start and all(
        row.num_trials == len(trials)
        and row.fingerprint == fingerprint(row.study, row.revision, row.parameters, trials)
        for row, trials in found
    )


def _alike(one: StudySpec, other: StudySpec) -> bool:
    """Whether the values of two studies can be compared."""
    return one.task.name == other.task.name and one.objective == other.objective


def _anew(tx: Transaction, spec: StudySpec, name: str) -> Taken | str:
    """What is taken of a study, or why nothing is."""
    source = tx.studies.find(name)
    if source is None:
        return f"there is no study named {name}"
    if source.spec.task.name != spec.task.name:
        return f"{name} is of the task {source.spec.task.name}, not of {spec.task.name}"
    if source.spec.objective != spec.objective:
        its, ours = source.spec.objective, spec.objective
        return f"{name} is to {its.direction} {its.metric}, not to {ours.direction} {ours.metric}"
    shared = shared_parameters(spec.space, source.spec.space)
    if not shared:
        return f"{name} has no parameter of this study's space"
    ended = tx.trials.ended(source.id)
    if not any(value is not None for _, _, value in ended):
        return f"{name} has no trial with a value yet"
    direction = spec.objective.direction
    states, values = [state for _, state, _ in ended], [value for _, _, value in ended]
    kept = most_telling(states, values, direction, _MAX_READ)
    rows = tx.trials.of_numbers(source.id, [ended[index][0] for index in kept.tolist()])
    trials = [
        SourceTrial(
            config=_only(shared, row.config),
            state=row.state.value,
            value=row.value,
        )
        for _, row in sorted(rows.items())
    ]
    return _chosen(spec, name, source.revision, shared, trials)


def _again(spec: StudySpec, taken: Taken) -> Taken | str:
    """What another study took, as far as this one can have it too."""
    row, trials = taken
    shared = tuple(name for name in spec.space.names if name in row.parameters)
    if not shared:
        return f"{row.study} has no parameter of this study's space"
    cut = [trial.model_copy(update={"config": _only(shared, trial.config)}) for trial in trials]
    return _chosen(spec, row.study, row.revision, shared, cut)


def _only(shared: tuple[str, ...], config: Config) -> Config:
    return {name: config[name] for name in shared if name in config}


def _chosen(
    spec: StudySpec,
    name: str,
    revision: int,
    shared: tuple[str, ...],
    trials: list[SourceTrial],
) -> Taken | str:
    """The trials in range that tell most, or why there are none."""
    problems = [problem_of(spec.space, shared, trial.config) for trial in trials]
    inside = [t for t, problem in zip(trials, problems, strict=True) if problem is None]
    if not any(trial.value is not None for trial in inside):
        why = next((problem for problem in problems if problem is not None), "none has a value")
        return f"no trial of {name} is in this study's ranges: {why}"
    states, values = [trial.state for trial in inside], [trial.value for trial in inside]
    kept = most_telling(states, values, spec.objective.direction, MAX_TRIALS)
    chosen = [inside[index] for index in kept.tolist()]
    digest = fingerprint(name, revision, shared, chosen)
    row = SourceRow(name, revision, shared, len(chosen), digest)
    return row, chosen
