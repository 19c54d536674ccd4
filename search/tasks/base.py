"""The task port: a named training procedure, installed where it is used, never sent over HTTP.

The api describes tasks and checks specs by them, workers train by them.  So the modules of tasks
import neither torch nor numpy nor scikit-learn at their top; `prepare` imports what it needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, Protocol, TypeVar

from ridgeline.search.fields import Direction
from ridgeline.search.objective import Budget, EarlyStopping, Objective, Penalty
from ridgeline.search.ranges import Value
from ridgeline.search.space import Config, Space
from ridgeline.search.tasks.domain import Domain
from ridgeline.search.tasks.kinds import (
    Classes,
    Features,
    FeaturesKind,
    Image,
    Numbers,
    Targets,
    TargetsKind,
    Tokens,
)
from ridgeline.search.tasks.settings import (
    Bag,
    ClassWeights,
    Images,
    Reading,
    Split,
    TaskSettings,
)

if TYPE_CHECKING:
    from ridgeline.search.engine.config import RunConfig
    from ridgeline.search.engine.models.base import Model

S = TypeVar("S", bound=TaskSettings)

Problem = tuple[str, str]
"""The path of a field, such as `space.l2`, and what is wrong with it."""


class DataChoice(NamedTuple):
    """A data set by its name, how it is divided, and how its texts become vectors, if they do.

    `label` or `target` is the column of a table to learn, where the table does not say it;
    `images` is what pictures are made to be.
    """

    dataset: str
    split: Split
    bag: Bag | None = None
    label: str | None = None
    target: str | None = None
    images: Images | None = None

    @property
    def reading(self) -> Reading:
        """How the files are read."""
        by = self.split.column if self.split.kind == "group" else None
        time = self.split.column if self.split.kind == "time" else None
        return Reading(self.label, self.target, by, time, self.images)

    def targets(self, targets: Targets | None) -> Targets | None:
        """What is learned, by what the data set says itself; of labels the number is not known."""
        if self.label is not None:
            return Classes(2)
        return targets if self.target is None else Numbers(1)

    def features(self, features: Features) -> Features:
        """What rows are when a task is given them, by what they are in the data set."""
        if self.bag is not None and isinstance(features, Tokens):
            return self.bag.vector(features)
        if self.images is not None and isinstance(features, Image):
            return self.images.image(features)
        return features


class SearchSpec(Protocol):
    """What a task sees of a study's spec, besides its own settings."""

    @property
    def space(self) -> Space: ...
    @property
    def objective(self) -> Objective: ...
    @property
    def budget(self) -> Budget: ...
    @property
    def replicates(self) -> int: ...
    @property
    def early_stopping(self) -> EarlyStopping | None: ...
    @property
    def penalty(self) -> Penalty: ...


@dataclass(frozen=True)
class RunInput(Generic[S]):
    """All that decides what a run comes to, but the program that trains it.

    `config` has a value for every parameter of the task.  `data_fingerprint` is that of the data
    set the study was created with; None takes the data as they are.  `replicate` counts the runs of
    the trial from 0, by which each has a division of the rows.
    """

    task: S
    config: Config
    seed: int
    objective: Objective
    early_stopping: EarlyStopping | None
    penalty: Penalty
    data_fingerprint: str | None
    replicate: int = 0


class EngineRun(NamedTuple):
    """A run as the engine takes it, but for its data."""

    config: RunConfig
    model: Model


class Task(ABC, Generic[S]):
    """One task: what it is called, and what can be searched and judged.

    The description of the task is the docstring of its settings.

    Attributes:
        name: unique among the installed tasks.
        settings: a model whose `name` is a Literal of the task's name.
        trained_by: "workers", or "program" where people's own programs ask for trials and tell what
            came of them; "nobody" where the task is not installed.
        parameters: what a study may search, by name; None leaves that to the program.
        metrics: what a study may be judged by, and which way is better; None leaves that to the
            program.
        example: settings as a spec has them, for documents.
        needs_process: whether workers train each run in a process of its own, not in a pack.
        takes_gaps: whether a run may lack a parameter that has no default, since the study has a
            condition for it.
    """

    name: str
    settings: type[S]
    trained_by: Literal["workers", "program", "nobody"]
    parameters: Mapping[str, Domain] | None
    metrics: Mapping[str, Direction] | None
    example: Mapping[str, Any]
    needs_process: bool = False
    takes_gaps: bool = False

    @property
    def description(self) -> str:
        """What the task is, for people."""
        return (self.settings.__doc__ or "").strip()

    def defaults(self, settings: S | None) -> Mapping[str, Value]:
        """The value of each parameter that a study does not search, `epochs` excepted.

        Args:
            settings: those of a study; None: of one that says nothing of them.
        """
        return {}

    def data(self, settings: S) -> DataChoice | None:
        """What a study with these settings trains on; None: on nothing that workers have."""
        return None

    def num_divisions(self, settings: S) -> int:
        """Ways in which a study with these settings divides its rows, see `Split`."""
        data = self.data(settings)
        return 1 if data is None else data.split.num_divisions

    def check_complete(self, config: Config) -> None:
        """Check that a run's configuration has exactly the task's parameters.

        Raises:
            ValueError: it lacks one of them, or has others.
        """
        parameters = self.parameters or {}
        may_lack = set(parameters) - {*self.defaults(None), "epochs"} if self.takes_gaps else set()
        differing = sorted((set(config) ^ set(parameters)) - (may_lack - set(config)))
        if differing:
            state = "lacks" if differing[0] in parameters else "must not have"
            raise ValueError(f"the run's configuration {state} {differing[0]}")

    def problems(self, settings: S, spec: SearchSpec) -> Iterable[Problem]:
        """What is wrong with a spec, besides what follows from `parameters` and `metrics`."""
        return ()


class EngineTask(Task[S]):
    """A task whose runs the engine trains, in packs.

    Attributes:
        features, targets: the kinds of data that it can be trained on.
    """

    trained_by = "workers"
    parameters: Mapping[str, Domain]
    metrics: Mapping[str, Direction]
    features: frozenset[FeaturesKind]
    targets: frozenset[TargetsKind]

    @abstractmethod
    def data(self, settings: S) -> DataChoice:
        """What a study with these settings trains on."""

    def class_weights(self, settings: S) -> ClassWeights | None:
        """How much the classes weigh in the loss of training; None: all alike."""
        return None

    def metrics_of(self, targets: Targets) -> Mapping[str, Direction]:
        """Those of `metrics` that a study of such data may be judged by."""
        return self.metrics

    def misfit(self, settings: S, features: Features, targets: Targets) -> str | None:
        """Why the task, with these settings, cannot be trained on such data; None where it can.

        Args:
            features: what they are in the data set.
        """
        choice = self.data(settings)
        if choice.bag is not None and features.kind != "tokens":
            return f"its features are {features.kind}, but task.bag is for texts"
        given = choice.features(features)
        for what, kind, known in (
            ("features", given.kind, self.features),
            ("targets", targets.kind, self.targets),
        ):
            if kind not in known:
                wanted = " or ".join(sorted(known))
                reason = f"its {what} are {kind}, but the task {self.name} needs {wanted}"
                if kind == "tokens" and "bag" in self.settings.model_fields:
                    reason += ": set task.bag to make vectors of its texts"
                return reason
        return None

    def unfit(
        self, settings: S, metric: str, features: Features, targets: Targets
    ) -> Problem | None:
        """Why no run of a study with that objective can be trained on such data."""
        if (reason := self.misfit(settings, features, targets)) is not None:
            return "task.dataset", reason
        if metric not in (metrics := self.metrics_of(targets)):
            known = ", ".join(metrics)
            return "objective.metric", f"must be one of {known}: the targets are {targets.kind}"
        return None

    def data_problems(
        self, settings: S, spec: SearchSpec, features: Features, targets: Targets
    ) -> Iterator[Problem]:
        """What is wrong with a spec, besides `problems`, since its data are of these kinds."""
        if (problem := self.unfit(settings, spec.objective.metric, features, targets)) is not None:
            yield problem
        given, usual = self.defaults(settings), self.defaults(None)
        for name, domain in self.parameters.items():
            if (reason := domain.misfit(targets)) is None:
                continue
            if name in spec.space:
                yield f"space.{name}", reason
            elif given[name] != usual[name]:
                yield f"task.defaults.{name}", reason

    @abstractmethod
    def prepare(self, run: RunInput[S], features: Features, targets: Targets) -> EngineRun:
        """A run for the engine, to be trained on such data.

        Args:
            features: as `DataChoice.features` has them.

        Raises:
            ValueError: the configuration is not complete, or not one of this task's.
        """
