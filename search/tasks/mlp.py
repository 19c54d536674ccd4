"""The multilayer perceptron, a classifier."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import Field

from ridgeline.search.fields import MAX_EPOCHS, Flag, Real, SpecPart, Whole
from ridgeline.search.ranges import Value
from ridgeline.search.tasks.base import DataChoice, EngineRun, EngineTask, RunInput
from ridgeline.search.tasks.domain import Domain
from ridgeline.search.tasks.kinds import Classes, Features, Targets
from ridgeline.search.tasks.settings import (
    MAX_BATCH_SIZE,
    MAX_COEFFICIENT,
    MAX_WIDTH,
    DatasetName,
    Split,
    TaskSettings,
)


class MlpDefaults(SpecPart):
    """The value of each parameter that the study's space leaves out."""

    learning_rate: Annotated[Real, Field(gt=0, le=MAX_COEFFICIENT)] = 1e-3
    batch_size: Annotated[Whole, Field(ge=1, le=MAX_BATCH_SIZE)] = 64
    l1: Annotated[Real, Field(ge=0, le=MAX_COEFFICIENT)] = 0.0
    l2: Annotated[Real, Field(ge=0, le=MAX_COEFFICIENT)] = 0.0
    weight_decay: Annotated[Real, Field(ge=0, le=MAX_COEFFICIENT)] = 0.0
    dropout: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    momentum: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    nesterov: Flag = False
    optimizer: Literal["sgd", "adam", "adamw"] = "adam"
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = "constant"
    warmup: Annotated[Real, Field(ge=0, lt=1)] = 0.0
    clip_norm: Annotated[Real, Field(ge=0, le=MAX_COEFFICIENT)] = 0.0


class MlpSettings(TaskSettings):
    """A fully connected classifier: hidden layers, then a softmax."""

    name: Literal["mlp"]
    dataset: Annotated[DatasetName, Field(description="see GET /v1/datasets")]
    hidden: Annotated[
        tuple[Annotated[Whole, Field(ge=1, le=MAX_WIDTH)], ...],
        Field(max_length=32, description="widths of the hidden layers; [] is softmax regression"),
    ] = (64,)
    activation: Literal["relu", "tanh"] = "relu"
    batch_norm: Flag = False
    split: Split = Split()
    defaults: MlpDefaults = MlpDefaults()


class MlpTask(EngineTask[MlpSettings]):
    name = "mlp"
    settings = MlpSettings
    metrics = MappingProxyType({"validation_accuracy": "maximize", "validation_loss": "minimize"})
    parameters = MappingProxyType(
        {
            "learning_rate": Domain(
                "float",
                "step size of the optimizer, the highest of the schedule",
                open_low=True,
                low=0,
                high=MAX_COEFFICIENT,
            ),
            "batch_size": Domain("int", "rows a step", low=1, high=MAX_BATCH_SIZE, listed=True),
            "l1": Domain("float", "λ of the L1 penalty, λ·Σ|w|", low=0, high=MAX_COEFFICIENT),
            "l2": Domain("float", "λ of the L2 penalty, λ·Σw²", low=0, high=MAX_COEFFICIENT),
            "weight_decay": Domain(
                "float",
                "decoupled weight decay: w -= learning_rate·λ·w",
                low=0,
                high=MAX_COEFFICIENT,
            ),
            "dropout": Domain(
                "float", "share of hidden units dropped", low=0, high=1, open_high=True
            ),
            "momentum": Domain("float", "momentum of SGD", low=0, high=1, open_high=True),
            "nesterov": Domain("flag", "whether the momentum of SGD is Nesterov's"),
            "optimizer": Domain("choice", "update rule", choices=("sgd", "adam", "adamw")),
            "schedule": Domain(
                "choice",
                "how the learning rate goes over the run's steps",
                choices=("constant", "step", "cosine", "one_cycle"),
            ),
            "warmup": Domain(
                "float",
                "share of the steps in which the rate rises; one_cycle does not read it",
                low=0,
                high=1,
                open_high=True,
            ),
            "clip_norm": Domain(
                "float",
                "bound on the norm of the objective's gradient; 0 is none",
                low=0,
                high=MAX_COEFFICIENT,
            ),
            "epochs": Domain(
                "int",
                "passes over the training rows; budget.epochs where left out",
                low=1,
                high=MAX_EPOCHS,
            ),
        }
    )
    features = frozenset({"vector", "image"})
    targets = frozenset({"classes"})
    example = MappingProxyType({"name": "mlp", "dataset": "digits", "hidden": [64]})

    def defaults(self, settings: MlpSettings | None) -> Mapping[str, Value]:
        found = MlpDefaults() if settings is None else settings.defaults
        return found.model_dump()

    def data(self, settings: MlpSettings) -> DataChoice:
        return DataChoice(settings.dataset, settings.split)

    def prepare(
        self, run: RunInput[MlpSettings], features: Features, targets: Targets
    ) -> EngineRun:
        from ridgeline.search.engine.config import RunConfig
        from ridgeline.search.engine.models.mlp import Mlp

        assert isinstance(targets, Classes)
        # The engine has defaults of its own, which must not stand in for the task's.
        differing = sorted(set(run.config) ^ set(self.parameters))
        if differing:
            state = "lacks" if differing[0] in self.parameters else "must not have"
            raise ValueError(f"the run's configuration {state} {differing[0]}")
        stopping = run.early_stopping
        settings = {
            **run.config,
            **run.penalty.model_dump(),
            **({} if stopping is None else stopping.model_dump()),
            "monitor": run.objective.metric,
            "direction": run.objective.direction,
        }
        model = Mlp(
            num_features=math.prod(features.shape),
            hidden=run.task.hidden,
            num_outputs=targets.count,
            activation=run.task.activation,
            batch_norm=run.task.batch_norm,
        )
        return EngineRun(RunConfig(seed=run.seed, **settings), model)
