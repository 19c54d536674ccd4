"""Tasks of the engine that differ in their settings and in the model that these describe."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import Field

from ridgeline.search.fields import SpecPart
from ridgeline.search.ranges import Value
from ridgeline.search.tasks.base import DataChoice, EngineRun, EngineTask, RunInput
from ridgeline.search.tasks.kinds import Features, Targets
from ridgeline.search.tasks.settings import DatasetName, Split, TaskSettings

if TYPE_CHECKING:
    from ridgeline.search.engine.config import RunConfig
    from ridgeline.search.engine.models.base import Model

DatasetField = Annotated[DatasetName, Field(description="see GET /v1/datasets")]


class ModelSettings(TaskSettings):
    """What all such tasks are told besides what their model is like.

    Each of them has these fields: documents show `dataset` before, `split` and `defaults` after
    those of the model, which fields that are inherited could not do.
    """

    if TYPE_CHECKING:
        dataset: str
        split: Split
        defaults: SpecPart


S = TypeVar("S", bound=ModelSettings)


class ModelTask(EngineTask[S]):
    """A task that is a model with the settings that describe it.

    Its parameters are `parameters_of` its defaults.
    """

    def defaults(self, settings: S | None) -> Mapping[str, Value]:
        if settings is not None:
            return settings.defaults.model_dump()
        found: SpecPart = self.settings.model_fields["defaults"].get_default()
        return found.model_dump()

    def data(self, settings: S) -> DataChoice:
        return DataChoice(settings.dataset, settings.split)

    def prepare(self, run: RunInput[S], features: Features, targets: Targets) -> EngineRun:
        config = run_config(run, self.parameters)
        return EngineRun(config, self.model(run.task, features, targets))

    @abstractmethod
    def model(self, settings: S, features: Features, targets: Targets) -> Model:
        """What is trained on such data, which are of this task's kinds."""


def run_config(run: RunInput[Any], parameters: Collection[str]) -> RunConfig:
    """A run's configuration as the engine takes it.

    Args:
        parameters: the names of all that the task has.

    Raises:
        ValueError: the configuration lacks one of them, or has others.
    """
    from ridgeline.search.engine.config import RunConfig

    # The engine has defaults of its own, which must not stand in for the task's.
    differing = sorted(set(run.config) ^ set(parameters))
    if differing:
        state = "lacks" if differing[0] in parameters else "must not have"
        raise ValueError(f"the run's configuration {state} {differing[0]}")
    stopping = run.early_stopping
    settings: dict[str, Any] = {
        **run.config,
        **run.penalty.model_dump(),
        **({} if stopping is None else stopping.model_dump()),
        "monitor": run.objective.metric,
        "direction": run.objective.direction,
    }
    return RunConfig(seed=run.seed, **settings)
