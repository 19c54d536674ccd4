"""The spec of a study: everything a person says about a search, validated.

`StudySpec` checks shapes and types; `parse_spec` also checks what one part says about another (a
grid needs points, a parameter must be one the task has) and reports every problem by field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from ridgeline.search.constraints import MAX_LENGTH, Constraint, parse
from ridgeline.search.fields import MAX_SEED, Flag, SamplerName, SpecPart, Whole
from ridgeline.search.objective import (
    MAX_PARALLEL,
    MAX_TRIALS,
    Budget,
    EarlyStopping,
    Objective,
    Penalty,
)
from ridgeline.search.problems import told, validation_problems
from ridgeline.search.pruners import CurvePruner, HyperbandPruner, MedianPruner, Pruner
from ridgeline.search.racing import Racing
from ridgeline.search.ranges import ZERO_SUFFIX, FloatParameter, IntParameter
from ridgeline.search.space import Config, Space
from ridgeline.search.tasks.any_settings import INSTALLED_ONLY, AnySettings
from ridgeline.search.tasks.base import Task
from ridgeline.search.tasks.registry import problems_by, task_of

MAX_REPLICATES = 100
MAX_SOURCES = 5

StudyName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128),
    Field(description="unique; letters, digits, '.', '_' and '-'", examples=["digits-tpe"]),
]


class InvalidSpec(ValueError):
    """A spec or configuration that cannot be used; `problems` are (field path, reason) pairs."""

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__(told(problems))
        self.problems = problems


def _parsed(text: str) -> str:
    parse(text)
    return text


ConstraintText = Annotated[
    str,
    StringConstraints(min_length=1, max_length=MAX_LENGTH),
    AfterValidator(_parsed),
    Field(examples=["2*x + y < 10"]),
]
MAX_CONSTRAINTS = 50


class SamplerSpec(SpecPart):
    """How configurations are chosen; everything drawn follows from `seed`."""

    name: SamplerName = "auto"
    seed: Annotated[Whole, Field(ge=0, le=MAX_SEED)] = 0

    @property
    def learns(self) -> bool:
        """Whether what it chooses depends on the results so far."""
        return self.name not in ("grid", "random")


class StudySpec(SpecPart):
    """One search, as its author describes it."""

    name: StudyName
    task: AnySettings
    space: Space
    constraints: Annotated[
        tuple[ConstraintText, ...],
        Field(max_length=MAX_CONSTRAINTS, description="what the parameters of each trial keep"),
    ] = ()
    sampler: SamplerSpec = SamplerSpec()
    objective: Objective = Objective()
    budget: Budget = Budget()
    replicates: Annotated[
        Whole,
        Field(
            ge=1,
            le=MAX_REPLICATES,
            description="runs of each trial on each division of the rows, one seed each",
        ),
    ] = 1
    racing: Racing | None = None
    fresh_seeds: (
        Annotated[
            Whole,
            Field(
                ge=2,
                le=MAX_REPLICATES,
                description="trained by the winner once the search has ended; no choice is made "
                "by them",
            ),
        ]
        | None
    ) = None
    early_stopping: EarlyStopping | None = None
    pruner: Annotated[Pruner, Field(discriminator="name")] | None = None
    penalty: Penalty = Penalty()
    warm_start: Annotated[
        tuple[StudyName, ...],
        Field(
            max_length=MAX_SOURCES,
            description="studies whose trials the sampler learns from too, as they are when this "
            "one is created",
        ),
    ] = ()
    priority: Annotated[
        Whole, Field(ge=-1_000, le=1_000, description="higher goes first; equal ones share")
    ] = 0
    reproducible: Annotated[
        Flag,
        Field(
            description="the same trials whatever the number of workers, at some cost in waiting"
        ),
    ] = False

    @model_validator(mode="after")
    def _constrained_space(self) -> StudySpec:
        constraints = [parse(text) for text in self.constraints]
        if constraints and not any(_misnamed(self.space, one) for one in constraints):
            self.__dict__["space"] = self.space.constrained(constraints)  # the spec is frozen
        return self

    @property
    def num_trials(self) -> int:
        """The number of trials the study ends with."""
        if self.budget.trials is not None:
            return self.budget.trials
        num_cells = self.space.num_cells
        assert num_cells is not None, "parse_spec lets only grids leave budget.trials out"
        return num_cells

    @property
    def num_runs(self) -> int:
        """Runs of each trial: of each replicate as many as its rows are divided in ways."""
        return self.replicates * self.num_divisions

    @property
    def seeds_of_search(self) -> int:
        """Seeds that a trial may have before the winner is told; fresh ones come after them."""
        return self.replicates if self.racing is None else self.racing.seeds

    @property
    def num_divisions(self) -> int:
        """Ways in which the rows are divided; run r has division r modulo their number."""
        return self.definition.num_divisions(self.task)

    @property
    def max_parallel(self) -> int:
        """Trials in flight at once: a tenth of the budget where the sampler learns from results."""
        if self.budget.max_parallel is not None:
            return self.budget.max_parallel
        return max(1, self.num_trials // 10) if self.sampler.learns else MAX_PARALLEL

    @property
    def definition(self) -> Task[Any]:
        """The task that `task` has the settings of."""
        return task_of(self.task)

    @property
    def external(self) -> bool:
        """Whether the trials are trained by somebody else's program."""
        return self.definition.trained_by == "program"

    @property
    def dataset(self) -> str | None:
        """The name of the data set that workers train on, if they need one."""
        data = self.definition.data(self.task)
        return None if data is None else data.dataset

    @property
    def trains_on_validation(self) -> bool:
        """Whether the validation rows train too, so that metrics of them flatter."""
        data = self.definition.data(self.task)
        return data is not None and data.split.trains_on_validation

    @property
    def max_epochs(self) -> int | None:
        """Epochs that the longest run trains; None where its task decides."""
        domain = (self.definition.parameters or {}).get("epochs")
        if domain is None or domain.kind != "int":
            return None
        if "epochs" not in self.space:
            return self.budget.epochs
        epochs = self.space["epochs"]
        if isinstance(epochs, IntParameter | FloatParameter):
            longest = int(epochs.top)
        else:
            longest = max(int(value) for value in epochs.values)
        return longest if epochs.when is None else max(longest, self.budget.epochs)

    def run_config(self, config: Config) -> Config:
        """`config` completed with the task's defaults and the budget's epochs."""
        epochs = {"epochs": self.budget.epochs} if self._has_epochs else {}
        return {**self.definition.defaults(self.task), **epochs, **config}

    @property
    def _has_epochs(self) -> bool:
        """Whether the number of epochs is a parameter of the task."""
        return "epochs" in (self.definition.parameters or ())


def parse_spec(data: Mapping[str, Any]) -> StudySpec:
    """A study's spec from plain JSON or YAML data.

    Raises:
        InvalidSpec: with every problem found and the field it is in.
    """
    try:
        spec = StudySpec.model_validate(data, context=INSTALLED_ONLY)
    except ValidationError as exc:
        raise InvalidSpec(list(validation_problems(exc))) from exc
    problems = list(cross_problems(spec))
    if problems:
        raise InvalidSpec(problems)
    return spec


def _misnamed(space: Space, constraint: Constraint) -> str | None:
    """What is wrong with the names in a constraint."""
    for name in constraint.names:
        at = f"at character {constraint.positions[name] + 1}: {name} is"
        if name not in space:
            return f"{at} not a parameter of the space"
        if not space.is_number(name):
            return f"{at} not a parameter of numbers"
    return None


def _constraint_problems(spec: StudySpec) -> Iterator[tuple[str, str]]:
    misnamed = [_misnamed(spec.space, parse(text)) for text in spec.constraints]
    yield from (
        (f"constraints.{index}", reason)
        for index, reason in enumerate(misnamed)
        if reason is not None
    )
    if not spec.space.constraints:
        return
    from ridgeline.search.samplers.feasible import has_any  # numpy, which other specs do without

    if spec.sampler.name != "grid" or spec.space.num_cells is None:
        if not has_any(spec.space):
            yield "constraints", "no configuration was found that keeps them all"
    elif spec.space.num_cells == 0:
        yield "constraints", "no cell of the grid keeps them all"
    elif not spec.space.has_known_cells and (
        spec.budget.trials is None or spec.budget.trials >= spec.space.num_cells
    ):
        yield "constraints", "the grid is too large to find all of its cells that keep them"


def cross_problems(spec: StudySpec) -> Iterator[tuple[str, str]]:
    """What one part of a spec says against another, by field."""
    constraint_problems = list(_constraint_problems(spec))
    yield from constraint_problems
    num_cells = spec.space.num_cells
    if spec.sampler.name == "grid":
        if constraint_problems:
            return
        for name, parameter in spec.space.items():
            if parameter.grid_size is None:
                yield f"space.{name}.points", "a grid needs points (or step) on a float range"
        limit = spec.budget.trials
        if num_cells is not None and limit is None and num_cells > MAX_TRIALS:
            size = num_cells if num_cells < 10**9 else "over a billion"
            size = size if spec.space.is_plain else f"over {MAX_TRIALS}"
            yield "space", f"the grid has {size} cells; at most {MAX_TRIALS} can be tried"
        if num_cells is not None and limit is not None and limit > num_cells:
            yield "budget.trials", f"the grid has only {num_cells} cells"
    elif spec.budget.trials is None:
        yield "budget.trials", f"is needed with the sampler {spec.sampler.name}"
    for name, parameter in spec.space.items():
        has_zero = isinstance(parameter, FloatParameter) and parameter.zero
        if has_zero and (taken := name + ZERO_SUFFIX) in spec.space:
            yield f"space.{taken}", f"the name is taken: zero on {name} is recorded under it"
    yield from _source_problems(spec)
    problems = problems_by(spec.definition, lambda: _task_problems(spec))
    yield from problems
    if spec.pruner is not None and not problems:
        yield from _pruner_problems(spec, spec.pruner)


def _source_problems(spec: StudySpec) -> Iterator[tuple[str, str]]:
    if spec.warm_start and not spec.sampler.learns:
        yield "warm_start", f"the sampler {spec.sampler.name} learns from no trials; leave it out"
    for index, name in enumerate(spec.warm_start):
        if name in spec.warm_start[:index]:
            yield f"warm_start.{index}", f"{name} is named twice"


def _pruner_problems(spec: StudySpec, pruner: Pruner) -> Iterator[tuple[str, str]]:
    if spec.reproducible:
        yield "pruner", "depends on which runs came first, so a reproducible study can have none"
    last = spec.max_epochs
    if last is None:
        return
    if pruner.first_epoch >= last:
        field = "warmup_epochs" if isinstance(pruner, MedianPruner) else "min_epochs"
        yield f"pruner.{field}", f"leaves nothing to prune: runs train {last} epochs at most"
    elif isinstance(pruner, CurvePruner) and pruner.first_epoch > last // 2:
        reason = f"leaves nothing to prune: runs past half of their {last} epochs go on"
        yield "pruner.min_epochs", reason
    elif isinstance(pruner, HyperbandPruner) and pruner.brackets > 2:
        highest = pruner.halving_of(pruner.brackets - 2).first_epoch
        if highest >= last:
            reason = f"are too many: two or more would prune nothing, as runs train {last} epochs"
            yield "pruner.brackets", f"{reason} at most"


def _repeat_problems(spec: StudySpec) -> Iterator[tuple[str, str]]:
    """What keeps trials from being trained again with other seeds."""
    field = "fresh_seeds" if spec.fresh_seeds is not None else "racing"
    if spec.external and (spec.fresh_seeds is not None or spec.racing is not None):
        reason = "must be left out of an external study: your program has seeds of its own"
        yield field, reason
        return
    if spec.racing is not None and spec.racing.seeds <= spec.replicates:
        yield "racing.seeds", f"must be above replicates, the {spec.replicates} that all have"
    num_seeds = spec.seeds_of_search + (spec.fresh_seeds or 0)
    if (num_runs := num_seeds * spec.num_divisions) > MAX_REPLICATES:
        reason = f"{num_seeds} by {spec.num_divisions} divisions of the rows are {num_runs} runs of"
        where = "fresh_seeds" if spec.fresh_seeds is not None else "racing.seeds"
        yield (
            where,
            f"{reason} the winner, those of the search among them; at most {MAX_REPLICATES}",
        )


def _problems_without_validation(spec: StudySpec) -> Iterator[tuple[str, str]]:
    """What would go by validation rows where these train too."""
    if not spec.trains_on_validation:
        return
    if spec.space.num_cells != 1:
        reason = "train+validation is for a space of one configuration: the validation rows train, "
        yield "task.split.train_on", f"{reason}so none can be chosen by them"
    for field in ("early_stopping", "pruner"):
        if getattr(spec, field) is not None:
            reason = "must be left out where task.split.train_on is train+validation"
            yield field, f"{reason}: the validation rows train, so no run can be stopped by them"
    for field in ("racing", "fresh_seeds"):
        if getattr(spec, field) is not None:
            reason = "must be left out where task.split.train_on is train+validation"
            yield field, f"{reason}: the validation rows train, so trials are not ranked by them"


def _task_problems(spec: StudySpec) -> Iterator[tuple[str, str]]:
    task = spec.definition
    if task.parameters is not None:
        for name, parameter in spec.space.items():
            domain = task.parameters.get(name)
            if domain is None:
                known = ", ".join(task.parameters)
                yield f"space.{name}", f"is not a parameter of the task {task.name}; it has {known}"
            elif (reason := domain.problem(parameter)) is not None:
                yield f"space.{name}", reason
            elif parameter.when and not task.takes_gaps and name not in spec.run_config({}):
                reason = f"the task {task.name} has no default, so each trial needs a value"
                yield f"space.{name}.when", reason
        epochs = task.parameters.get("epochs")
        if epochs is not None and ("epochs" not in spec.space or spec.space["epochs"].when):
            reason = epochs.problem_of_default(spec.budget.epochs)
            if reason is not None:
                yield "budget.epochs", f"is the parameter epochs of the task {task.name}: {reason}"
    if task.metrics is not None:
        direction = task.metrics.get(spec.objective.metric)
        if direction is None:
            yield "objective.metric", f"must be one of {', '.join(task.metrics)}"
        elif direction != spec.objective.direction:
            yield "objective.direction", f"{spec.objective.metric} is to {direction}"
    yield from task.problems(spec.task, spec)
    yield from _problems_without_validation(spec)
    if (num_runs := spec.num_runs) > MAX_REPLICATES:
        reason = f"{spec.replicates} by {spec.num_divisions} divisions of the rows are {num_runs}"
        yield "replicates", f"{reason} runs of each trial; at most {MAX_REPLICATES}"
    else:
        yield from _repeat_problems(spec)
    _ = spec.dataset, spec.run_config({})  # which the study needs from now on
