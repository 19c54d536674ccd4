"""The multilayer perceptron."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ridgeline.search.fields import Flag, Whole
from ridgeline.search.tasks.kinds import Features, Targets
from ridgeline.search.tasks.model_task import (
    BagField,
    DatasetField,
    ImagesField,
    LabelField,
    ModelSettings,
    ModelTask,
    TargetField,
    WeightsField,
    metrics_of_all,
)
from ridgeline.search.tasks.parameters import (
    Dropping,
    DroppingInputs,
    Penalising,
    Regularising,
    Stepping,
    Updating,
    parameters_of,
)
from ridgeline.search.tasks.settings import MAX_WIDTH, Split

if TYPE_CHECKING:
    from ridgeline.search.engine.models.mlp import Mlp


class MlpDefaults(DroppingInputs, Regularising, Updating, Dropping, Penalising, Stepping):
    """The value of each parameter that the study's space leaves out."""


class MlpSettings(ModelSettings):
    """A fully connected network: hidden layers, then a softmax, or numbers as they are."""

    name: Literal["mlp"]
    dataset: DatasetField
    label: LabelField = None
    target: TargetField = None
    hidden: Annotated[
        tuple[Annotated[Whole, Field(ge=1, le=MAX_WIDTH)], ...],
        Field(max_length=32, description="widths of the hidden layers; [] is the task linear"),
    ] = (64,)
    activation: Literal["relu", "tanh"] = "relu"
    batch_norm: Flag = False
    images: ImagesField = None
    bag: BagField = None
    class_weights: WeightsField = None
    split: Split = Split()
    defaults: MlpDefaults = MlpDefaults()


class MlpTask(ModelTask[MlpSettings]):
    name = "mlp"
    settings = MlpSettings
    parameters = parameters_of(MlpDefaults)
    features = frozenset({"vector", "image"})
    targets = frozenset({"classes", "numbers"})
    metrics = metrics_of_all(targets)
    example = MappingProxyType({"name": "mlp", "dataset": "digits", "hidden": [64]})

    def model(self, settings: MlpSettings, features: Features, targets: Targets) -> Mlp:
        from ridgeline.search.engine.models.mlp import Mlp

        return Mlp(
            num_features=math.prod(features.shape),
            hidden=settings.hidden,
            num_outputs=targets.count,
            activation=settings.activation,
            batch_norm=settings.batch_norm,
        )
