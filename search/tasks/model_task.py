"""Tasks of the engine that differ in their settings and in the model that these describe."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, ValidationInfo

from ridgeline.search.fields import Direction, SpecPart, Text
from ridgeline.search.ranges import Value
from ridgeline.search.tasks.base import DataChoice, EngineRun, EngineTask, Problem, RunInput
from ridgeline.search.tasks.kinds import Classes, Features, Targets, TargetsKind
from ridgeline.search.tasks.settings import (
    Bag,
    ClassWeights,
    DatasetName,
    Images,
    Split,
    TaskSettings,
)

if TYPE_CHECKING:
    from ridgeline.search.engine.config import LossName, RunConfig
    from ridgeline.search.engine.models.base import Model

METRICS: Mapping[TargetsKind, Mapping[str, Direction]] = MappingProxyType(
    {
        "classes": {
            "validation_accuracy": "maximize",
            "validation_loss": "minimize",
            "validation_balanced_accuracy": "maximize",
            "validation_macro_f1": "maximize",
            "validation_roc_auc": "maximize",
            "validation_log_loss": "minimize",
        },
        "numbers": {
            "validation_loss": "minimize",
            "validation_rmse": "minimize",
            "validation_mae": "minimize",
            "validation_r2": "maximize",
            "validation_mse": "minimize",
        },
    }
)
"""What a study of such targets may be judged by."""

LOSS: Mapping[TargetsKind, LossName] = MappingProxyType(
    {"classes": "cross_entropy", "numbers": "mean_squared_error"}
)
"""What is learned of such targets."""

DatasetField = Annotated[DatasetName, Field(description="see GET /v1/datasets")]


WeightsField = Annotated[
    ClassWeights | None,
    Field(
        description="of the classes in the loss of training: `balanced`, by how rare they are, or "
        "a number for each; left out: 1 each"
    ),
]

BagField = Annotated[
    Bag | None, Field(description="how texts become vectors; left out: the data are no texts")
]


def _alone(target: str | None, info: ValidationInfo) -> str | None:
    if target is not None and info.data.get("label") is not None:
        raise ValueError("task.label says already what is learned")
    return target


ImagesField = Annotated[
    Images | None,
    Field(description="what pictures of a folder are made to be; left out: they stay as they are"),
]
LabelField = Annotated[
    Text | None,
    Field(description="the column of a table that has classes; left out: the table says it"),
]
TargetField = Annotated[
    Text | None,
    Field(description="the column of a table that has numbers to learn; left out: as of label"),
    AfterValidator(_alone),
]


class ModelSettings(TaskSettings):
    """What all such tasks are told besides what their model is like.

    Each of them has these fields: documents show `dataset` before, the others after those of the
    model, which fields that are inherited could not do.
    """

    if TYPE_CHECKING:
        dataset: str
        class_weights: ClassWeights | None
        split: Split
        defaults: SpecPart


S = TypeVar("S", bound=ModelSettings)


class ModelTask(EngineTask[S]):
    """A task that is a model with the settings that describe it.

    Its parameters are `parameters_of` its defaults, its metrics `metrics_of_all` its targets.
    """

    def metrics_of(self, targets: Targets) -> Mapping[str, Direction]:
        return METRICS[targets.kind]

    def unfit(
        self, settings: S, metric: str, features: Features, targets: Targets
    ) -> Problem | None:
        weights = settings.class_weights
        if (problem := super().unfit(settings, metric, features, targets)) is not None:
            return problem
        if weights is not None and not isinstance(targets, Classes):
            return "task.class_weights", "must be left out: the targets are numbers"
        if isinstance(weights, tuple) and len(weights) != targets.count:
            reason = f"must be {targets.count} numbers, one for each class, not {len(weights)}"
            return "task.class_weights", reason
        return None

    def class_weights(self, settings: S) -> ClassWeights | None:
        return settings.class_weights

    def defaults(self, settings: S | None) -> Mapping[str, Value]:
        if settings is not None:
            return settings.defaults.model_dump()
        found: SpecPart = self.settings.model_fields["defaults"].get_default()
        return found.model_dump()

    def data(self, settings: S) -> DataChoice:
        said = {
            name: getattr(settings, name, None) for name in ("bag", "label", "target", "images")
        }
        return DataChoice(settings.dataset, settings.split, **said)

    def prepare(self, run: RunInput[S], features: Features, targets: Targets) -> EngineRun:
        # The engine has defaults of its own, which must not stand in for the task's.
        self.check_complete(run.config)
        config = _run_config(run, LOSS[targets.kind])
        return EngineRun(config, self.model(run.task, features, targets))

    @abstractmethod
    def model(self, settings: S, features: Features, targets: Targets) -> Model:
        """What is trained on such data, which are of this task's kinds."""


def metrics_of_all(kinds: Collection[TargetsKind]) -> Mapping[str, Direction]:
    """What studies of any of these targets may be judged by."""
    found: dict[str, Direction] = {}
    for kind, metrics in METRICS.items():
        found |= metrics if kind in kinds else {}
    return MappingProxyType(found)


def _run_config(run: RunInput[Any], loss: LossName) -> RunConfig:
    """A run's complete configuration as the engine takes it."""
    from ridgeline.search.engine.config import RunConfig

    stopping = run.early_stopping
    settings: dict[str, Any] = {
        **run.config,
        **run.penalty.model_dump(),
        **({} if stopping is None else stopping.model_dump()),
        "loss": loss,
        "monitor": run.objective.metric,
        "direction": run.objective.direction,
    }
    return RunConfig(seed=run.seed, **settings)
