"""The spec of a comparison: ways to train, each tuned by a study of its own, on equal terms.

An arm is a study over what all arms share, the base, and over what is its own, such as the rate of
dropout.  Its winner is trained again with seeds that no choice was made by, and on the validation
rows too where the spec says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationError

from ridgeline.search.bounds import Bounds
from ridgeline.search.fields import SpecPart, Whole
from ridgeline.search.means import mean
from ridgeline.search.problems import validation_problems
from ridgeline.search.seeds import derive
from ridgeline.search.space import Config, ValuesParameter
from ridgeline.search.spec import MAX_REPLICATES, InvalidSpec, StudySpec, parse_spec
from ridgeline.search.tasks.base import EngineTask
from ridgeline.search.tasks.registry import installed
from ridgeline.search.tasks.settings import Split, TrainOn

MAX_ARMS = 32

ComparisonName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64),
    Field(description="unique; letters, digits, '.', '_' and '-'", examples=["digits-penalties"]),
]

ArmName = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*(\+[A-Za-z0-9][A-Za-z0-9_-]*)*$", max_length=48
    ),
    Field(description="letters, digits, '_' and '-'; '+' between the names of ready-made arms"),
]

_OF_ARMS = ("task", "space", "early_stopping", "penalty")
"""Fields of a study that arms may differ in; in all others, comparing them would not be fair."""

_ROWS = ("name", "dataset", "split", "label", "target")
"""Settings of a task that decide which rows are trained on, and judged by what."""

_EVEN = "must be left out: trials of other studies tell more about some arms than about others"
_NAMED = "must be left out: the studies are named after the comparison and its arms"

_VALIDATION, _TEST = "validation_", "test_"

_BOUNDS: Mapping[str, Bounds] = MappingProxyType(
    {
        **dict.fromkeys(("accuracy", "balanced_accuracy", "macro_f1", "roc_auc"), Bounds(0, 1)),
        **dict.fromkeys(("loss", "log_loss", "mae", "mse", "rmse"), Bounds(low=0)),
        "r2": Bounds(high=1),
    }
)
"""Of the metrics of the engine, without the part of the data that they are of."""

Partial = Mapping[str, Any]
"""Some fields of a study's spec, as plain data."""


def _by_name(arms: object) -> object:
    if not isinstance(arms, list) or not all(isinstance(name, str) for name in arms):
        return arms
    if twice := {name for name in arms if arms.count(name) > 1}:
        raise ValueError(f"names {', '.join(sorted(twice))} twice")
    return {name: {} for name in arms}


def _two_or_more(arms: Mapping[str, Partial]) -> Mapping[str, Partial]:
    if len(arms) < 2:
        raise ValueError("must be at least 2, to be compared")
    return arms


_ArmsByName = Annotated[dict[ArmName, dict[str, Any]], Field(min_length=1, max_length=MAX_ARMS)]
_ArmNames = Annotated[list[ArmName], Field(min_length=1, max_length=MAX_ARMS)]

Arms = Annotated[
    _ArmsByName,
    BeforeValidator(_by_name, json_schema_input_type=_ArmsByName | _ArmNames),
    Field(
        description="by name, what each adds to the base; or a list of the names of ready-made "
        "ones",
    ),
]


class ComparisonSpec(SpecPart):
    """What is compared, as its author describes it; see `studies_of`."""

    name: ComparisonName
    base: Annotated[
        dict[str, Any], Field(description="the spec of a study without its name: what arms share")
    ]
    arms: Annotated[Arms, AfterValidator(_two_or_more)]
    replicates: Annotated[
        Whole,
        Field(ge=3, le=MAX_REPLICATES, description="fresh seeds that each arm's winner trains by"),
    ] = 5
    train_on: Annotated[
        TrainOn,
        Field(
            description="the rows that winners train on with fresh seeds; searches have always "
            "the training rows alone"
        ),
    ] = "train"

    @property
    def trains_on_validation(self) -> bool:
        """Whether winners train on every row that is not a test row."""
        return self.train_on == "train+validation"


def parse_comparison(data: Mapping[str, Any]) -> ComparisonSpec:
    """A comparison's spec from plain JSON or YAML data; all its studies are ones that can be run.

    Raises:
        InvalidSpec: with every problem found and the field it is in.
    """
    try:
        spec = ComparisonSpec.model_validate(data)
    except ValidationError as exc:
        raise InvalidSpec(list(validation_problems(exc))) from exc
    problems = [
        (f"base.{field}", reason)
        for field, reason in (("name", _NAMED), ("warm_start", _EVEN))
        if field in spec.base
    ]
    try:
        studies = studies_of(spec)
    except InvalidSpec as exc:
        raise InvalidSpec([*problems, *exc.problems]) from exc
    if problems:
        raise InvalidSpec(problems)
    for study in studies.values():
        if spec.trains_on_validation and _split(study) is None:
            reason = f"must be train: the task {study.task.name} has no split"
            raise InvalidSpec([("train_on", reason)])
        num_divisions = 1 if spec.trains_on_validation else study.num_divisions
        if (num_runs := spec.replicates * num_divisions) > MAX_REPLICATES:
            reason = f"{spec.replicates} by {num_divisions} divisions of the rows are"
            reason += f" {num_runs} runs of each winner; at most {MAX_REPLICATES}"
            raise InvalidSpec([("replicates", reason)])
    return spec


def studies_of(spec: ComparisonSpec) -> dict[str, StudySpec]:
    """The study that tunes each arm.

    Raises:
        InvalidSpec: naming the arm and the field, or the base where all arms have the problem.
    """
    studies: dict[str, StudySpec] = {}
    problems: dict[str, list[tuple[str, str]]] = {}
    if no_objects := list(_no_objects(spec.base)):
        raise InvalidSpec(no_objects)
    for arm, its in spec.arms.items():
        problems[arm] = list(_unfair(its))
        try:
            partial = _merged(_ready_made(arm, its, spec.base), its)
            whole = _merged(spec.base, partial)
            studies[arm] = parse_spec({**whole, "name": _study_name(spec, "search", arm)})
        except InvalidSpec as exc:
            problems[arm] += exc.problems
        else:
            if studies[arm].fresh_seeds is not None:
                reason = "is what replicates of the comparison says; leave it out"
                problems[arm].append(("fresh_seeds", reason))
            if studies[arm].external:
                problems[arm].append(("task.name", "external programs have no seeds to compare by"))
            problems[arm] += _untrainable_again(spec, studies[arm])
    if any(problems.values()):
        raise InvalidSpec(list(_by_field(problems)))
    return studies


def fresh_study(
    spec: ComparisonSpec,
    arm: str,
    study: StudySpec,
    winner: Config,
    kept_epochs: Sequence[int] = (),
) -> StudySpec:
    """The study that trains an arm's winner by seeds that no selection has seen.

    Its runs are of one trial; run r of each arm has the same seed.  Where validation rows train
    too, nothing can stop a run by them: it trains as many epochs as the winner had when it was
    best, the mean over its runs to the nearest whole number, halves up.

    Args:
        study: that has tuned the arm.
        winner: the configuration of its best trial.
        kept_epochs: of that trial, by run, the epoch whose weights were kept; read where validation
            rows train and the study stops early.
    """
    whole = study.model_dump(mode="json", exclude_defaults=True)
    whole |= {
        "name": _study_name(spec, "fresh", arm),
        "space": {name: {"type": "values", "values": [value]} for name, value in winner.items()},
        "sampler": {"name": "grid", "seed": derive("fresh", study.sampler.seed)},
        "budget": {
            name: value
            for name, value in whole.get("budget", {}).items()
            if name in ("epochs", "run_seconds")
        },
        "replicates": spec.replicates,
    }
    whole.pop("pruner", None)
    whole.pop("constraints", None)  # which the winner keeps
    whole.pop("racing", None)
    if spec.trains_on_validation:
        whole["task"]["split"] = {**whole["task"].get("split", {}), "train_on": spec.train_on}
        if whole.pop("early_stopping", None) is not None and kept_epochs:
            epochs = math.floor(fmean(kept_epochs) + 0.5)
            if "epochs" in winner:
                whole["space"]["epochs"]["values"] = [epochs]
            else:
                whole["budget"]["epochs"] = epochs
    return parse_spec(whole)


def scores_by_seed(
    study: StudySpec, scores: Mapping[int, float | None], runs: range | None = None
) -> list[float | None]:
    """For each replicate the mean score of its runs; None where one of them has none.

    Runs of a cross-validation share most of their rows, so they are no independent tries: those of
    one replicate count as one.

    Args:
        study: that has trained a winner.
        scores: by the number of the run.
        runs: their numbers; left out: those of a trial of the search.
    """
    found: list[float | None] = []
    for first in (range(study.num_runs) if runs is None else runs)[:: study.num_divisions]:
        its = [scores.get(run) for run in range(first, first + study.num_divisions)]
        known = [score for score in its if score is not None]
        found.append(mean(known) if len(known) == len(its) else None)
    return found


def metric_on_test(spec: StudySpec) -> str:
    """What tells of rows that no choice was made by; a function has nothing but its one metric."""
    metric = spec.objective.metric
    if not isinstance(spec.definition, EngineTask):
        return metric
    return _TEST + metric.removeprefix(_VALIDATION)


def bounds_of(spec: StudySpec) -> Bounds:
    """Between which the study's metric is, and the one of test data; a function's may be anything.

    A metric called accuracy that a function returns may be in percent.
    """
    if not isinstance(spec.definition, EngineTask):
        return Bounds()
    return _BOUNDS.get(spec.objective.metric.removeprefix(_VALIDATION), Bounds())


def blamed(spec: ComparisonSpec, arm: str, field: str) -> str:
    """Where in the comparison that stands which is wrong with a field of an arm's study."""
    if not field:
        return f"arms.{arm}"
    top, *inner = field.split(".")[:2]
    for own in (spec.arms[arm], _ready_made(arm, spec.arms[arm], spec.base)):
        its = own.get(top)
        if top in own and (not inner or not isinstance(its, Mapping) or inner[0] in its):
            return f"arms.{arm}.{field}"
    return f"base.{field}"


def _split(study: StudySpec) -> Split | None:
    """How the rows of a study are divided, where its task lets a study say so."""
    split = getattr(study.task, "split", None)
    return split if isinstance(split, Split) else None


def _untrainable_again(spec: ComparisonSpec, study: StudySpec) -> Iterator[tuple[str, str]]:
    """Settings of an arm that its winner cannot be trained again by."""
    for name, parameter in study.space.items():
        if parameter.when is not None and name not in study.run_config({}):
            # The study of a winner has the winner's parameters alone.
            reason = f"the task {study.task.name} has no default for it, which arms need"
            yield f"space.{name}.when", reason
    split = _split(study)
    if split is not None and split.trains_on_validation:
        reason = "must be train, since the search chooses by validation rows"
        yield "task.split.train_on", f"{reason}; of winners the field train_on says it"
    if spec.trains_on_validation and study.early_stopping is not None and _has_schedule(study):
        reason = "must be left out, or the learning rate be constant, with train_on"
        reason += " train+validation: winners train as many epochs as they had when they were best,"
        yield "early_stopping", f"{reason} and a schedule or warm-up goes by the number of epochs"


def _has_schedule(study: StudySpec) -> bool:
    """Whether the learning rate of a trial may follow from the number of its epochs."""
    for name, without in (("schedule", "constant"), ("warmup", 0.0)):
        values: Sequence[object] = [study.run_config({}).get(name, without)]
        if name in study.space:
            parameter = study.space[name]
            values = parameter.values if isinstance(parameter, ValuesParameter) else [None]
        if any(value != without for value in values):
            return True
    return False


def _no_objects(base: Partial) -> Iterator[tuple[str, str]]:
    """Fields of the base that an arm's would take the place of, and hide that they are wrong."""
    for field in _OF_ARMS:
        value = base.get(field, {})
        if not isinstance(value, Mapping) and not (value is None and field == "early_stopping"):
            yield f"base.{field}", "must be an object"


def _study_name(spec: ComparisonSpec, purpose: str, arm: str) -> str:
    # No name of an arm has a point, so no two arms share a name.
    return f"{spec.name}-{purpose}.{arm.replace('+', '.')}"


def _unfair(arm: Partial) -> Iterator[tuple[str, str]]:
    """What an arm must leave to the base."""
    for field in arm:
        if field == "name":
            yield field, _NAMED
        elif field not in _OF_ARMS:
            yield field, f"is the base's alone; an arm has {', '.join(_OF_ARMS)}"
    task = arm.get("task", {})
    for setting in _ROWS:
        if isinstance(task, Mapping) and setting in task:
            yield f"task.{setting}", "is the base's alone: all arms train on the same rows"
    space = arm.get("space", {})
    if isinstance(space, Mapping) and "epochs" in space:
        yield "space.epochs", "is the base's alone: all arms train as many epochs"


def _merged(base: Partial, other: Partial) -> dict[str, Any]:
    """Objects field by field; anything else of the other takes the place of the base's."""
    merged = dict(base)
    for field, value in other.items():
        mine = merged.get(field)
        is_range = isinstance(value, Mapping) and "type" in value
        if isinstance(mine, Mapping) and isinstance(value, Mapping) and not is_range:
            merged[field] = _merged(mine, value)
        else:
            merged[field] = value
    return merged


def _by_field(problems: Mapping[str, list[tuple[str, str]]]) -> Iterator[tuple[str, str]]:
    shared = set.intersection(*(set(its) for its in problems.values()))
    first = next(iter(problems.values()))
    yield from ((f"base.{field}", reason) for field, reason in first if (field, reason) in shared)
    for arm, its in problems.items():
        for field, reason in its:
            if (field, reason) not in shared:
                yield f"arms.{arm}.{field}" if field else f"arms.{arm}", reason


def _ready_made(arm: str, its: Partial, base: Partial) -> dict[str, Any]:
    """What the ready-made arms in a name add; nothing for a name that none of them has.

    Raises:
        InvalidSpec: some parts of the name are those of ready-made arms and some are not; or none
            is, and the arm adds nothing itself.
    """
    parts = arm.split("+")
    unknown = [part for part in parts if part not in READY_MADE]
    if unknown and (len(parts) > 1 or not its):
        known = ", ".join(READY_MADE)
        raise InvalidSpec([("", f"there is no ready-made arm {unknown[0]}; there are {known}")])
    merged: dict[str, Any] = {}
    for part in parts if not unknown else ():
        merged = _merged(merged, READY_MADE[part](base))
    return merged


def _space(**ranges: Mapping[str, Any]) -> Callable[[Partial], Partial]:
    return lambda base: {"space": ranges}


def _log(low: float, high: float) -> dict[str, Any]:
    return {"type": "float", "low": low, "high": high, "log": True}


def _linear(low: float, high: float) -> dict[str, Any]:
    return {"type": "float", "low": low, "high": high}


def _batch_norm(base: Partial) -> Partial:
    """By the setting that the base's task has for it."""
    task = base.get("task")
    name = task.get("name") if isinstance(task, Mapping) else None
    definition = installed().tasks.get(name) if isinstance(name, str) else None
    has_norm = definition is not None and "norm" in definition.settings.model_fields
    return {"task": {"norm": "batch"} if has_norm else {"batch_norm": True}}


READY_MADE: Mapping[str, Callable[[Partial], Partial]] = MappingProxyType(
    {
        "none": lambda base: {},
        "l1": _space(l1=_log(1e-6, 1e-2)),
        "l2": _space(l2=_log(1e-6, 1e-2)),
        "weight_decay": _space(weight_decay=_log(1e-4, 1.0)),
        "max_norm": _space(max_norm=_log(0.5, 4.0)),
        "dropout": _space(dropout=_linear(0.0, 0.7)),
        "batch_norm": _batch_norm,
        "augmentation": _space(shift=_linear(0.0, 3.0), rotation=_linear(0.0, 20.0)),
        "early_stopping": lambda base: {"early_stopping": {"patience": 5}},
    }
)
"""What arms of these names add to a base, unless they say more themselves."""
