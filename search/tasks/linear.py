"""Softmax and linear regression."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

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
    DroppingInputs,
    Penalising,
    Regularising,
    Stepping,
    Updating,
    parameters_of,
)
from ridgeline.search.tasks.settings import Split

if TYPE_CHECKING:
    from ridgeline.search.engine.models.mlp import Mlp


class LinearDefaults(DroppingInputs, Regularising, Updating, Penalising, Stepping):
    """The value of each parameter that the study's space leaves out."""


class LinearSettings(ModelSettings):
    """Softmax regression of classes, linear regression of numbers: one layer, nothing hidden."""

    name: Literal["linear"]
    dataset: DatasetField
    label: LabelField = None
    target: TargetField = None
    images: ImagesField = None
    bag: BagField = None
    class_weights: WeightsField = None
    split: Split = Split()
    defaults: LinearDefaults = LinearDefaults()


class LinearTask(ModelTask[LinearSettings]):
    name = "linear"
    settings = LinearSettings
    parameters = parameters_of(LinearDefaults)
    features = frozenset({"vector", "image"})
    targets = frozenset({"classes", "numbers"})
    metrics = metrics_of_all(targets)
    example = MappingProxyType({"name": "linear", "dataset": "breast-cancer"})

    def model(self, settings: LinearSettings, features: Features, targets: Targets) -> Mlp:
        from ridgeline.search.engine.models.mlp import Mlp

        return Mlp(math.prod(features.shape), (), targets.count)
