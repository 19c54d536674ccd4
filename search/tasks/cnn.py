"""Convolutional networks, from LeNet to a small ResNet."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from ridgeline.search.fields import Flag, Whole
from ridgeline.search.tasks.kinds import Features, Image, Targets
from ridgeline.search.tasks.model_task import (
    DatasetField,
    ImagesField,
    ModelSettings,
    ModelTask,
    WeightsField,
    metrics_of_all,
)
from ridgeline.search.tasks.parameters import (
    Augmenting,
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
    from ridgeline.search.engine.models.module import ModuleModel

MAX_STAGES = 8
MAX_BLOCKS = 32

Width = Annotated[Whole, Field(ge=1, le=MAX_WIDTH)]

_OF_ARCHITECTURE: dict[str, dict[str, Any]] = {
    "lenet": {
        "channels": (6, 16),
        "blocks": 1,
        "hidden": (120, 84),
        "norm": "none",
        "pooling": "max",
    },
    "resnet": {
        "channels": (16, 32, 64),
        "blocks": 1,
        "hidden": (),
        "norm": "batch",
        "pooling": "average",
    },
}
"""What is meant where a setting is left out."""


NETWORK_FIELDS = {
    *("channels", "blocks", "hidden", "norm", "activation", "pooling", "spatial_dropout")
}
"""The settings that the network is told."""


class CnnDefaults(
    Augmenting, DroppingInputs, Regularising, Updating, Dropping, Penalising, Stepping
):
    """The value of each parameter that the study's space leaves out."""


class CnnSettings(ModelSettings):
    """A convolutional network for images: LeNet or a small ResNet, wider or deeper at will."""

    name: Literal["cnn"]
    dataset: DatasetField
    architecture: Literal["lenet", "resnet"] = "lenet"
    channels: Annotated[
        tuple[Width, ...] | None,
        Field(
            min_length=1,
            max_length=MAX_STAGES,
            description="of the stages, of which each halves the image (of a ResNet, all but the "
            "first); left out: [6, 16] of a LeNet, [16, 32, 64] of a ResNet",
        ),
    ] = None
    blocks: Annotated[
        Whole | None,
        Field(
            ge=1,
            le=MAX_BLOCKS,
            description="of a stage: convolutions of a LeNet, residual blocks of a ResNet; left "
            "out: 1",
        ),
    ] = None
    hidden: Annotated[
        tuple[Width, ...] | None,
        Field(
            max_length=MAX_STAGES,
            description="widths of the linear layers before the last; left out: [120, 84] of a "
            "LeNet, [] of a ResNet",
        ),
    ] = None
    norm: Annotated[
        Literal["none", "batch", "group", "layer"] | None,
        Field(description="after each convolution; left out: none of a LeNet, batch of a ResNet"),
    ] = None
    activation: Literal["relu", "gelu", "tanh"] = "relu"
    pooling: Annotated[
        Literal["max", "average"] | None,
        Field(
            description="after each stage of a LeNet, left out: max; over the whole image at the "
            "end of a ResNet, left out: average"
        ),
    ] = None
    spatial_dropout: Annotated[
        Flag, Field(description="whether dropout drops whole channels too, after each stage")
    ] = False
    images: ImagesField = None
    class_weights: WeightsField = None
    split: Split = Split()
    defaults: CnnDefaults = CnnDefaults()

    @property
    def network(self) -> dict[str, Any]:
        """The settings of the network, those that were left out as its architecture has them."""
        said = self.model_dump(include=NETWORK_FIELDS, exclude_none=True)
        return {**_OF_ARCHITECTURE[self.architecture], **said}


class CnnTask(ModelTask[CnnSettings]):
    name = "cnn"
    settings = CnnSettings
    parameters = parameters_of(CnnDefaults)
    features = frozenset({"image"})
    targets = frozenset({"classes", "numbers"})
    metrics = metrics_of_all(targets)
    example = MappingProxyType({"name": "cnn", "dataset": "digits", "channels": [8, 16]})

    def misfit(self, settings: CnnSettings, features: Features, targets: Targets) -> str | None:
        if (reason := super().misfit(settings, features, targets)) is not None:
            return reason
        features = self.data(settings).features(features)
        assert isinstance(features, Image)
        num_stages = len(settings.network["channels"])
        side = min(features.height, features.width)
        if settings.architecture == "lenet" and side < 2**num_stages:
            return (
                f"its images of {features.height}×{features.width} cannot be halved "
                f"{num_stages} times, once after each of task.channels"
            )
        return None

    def model(self, settings: CnnSettings, features: Features, targets: Targets) -> ModuleModel:
        from ridgeline.search.engine.models.convolutional import lenet, resnet
        from ridgeline.search.engine.models.module import ModuleModel

        return ModuleModel.of(
            {"lenet": lenet, "resnet": resnet}[settings.architecture],
            features.shape,
            targets.count,
            image=features.shape,
            outputs=targets.count,
            **settings.network,
        )
