"""Networks for texts: a bag of embedded tokens, then linear layers."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from ridgeline.search.fields import Whole
from ridgeline.search.tasks.kinds import PADDING, Features, Targets, Tokens
from ridgeline.search.tasks.model_task import (
    DatasetField,
    ModelSettings,
    ModelTask,
    WeightsField,
    metrics_of_all,
)
from ridgeline.search.tasks.parameters import (
    Dropping,
    Penalising,
    Regularising,
    Stepping,
    Updating,
    parameters_of,
)
from ridgeline.search.tasks.settings import MAX_WIDTH, Split

if TYPE_CHECKING:
    from ridgeline.search.engine.models.module import ModuleModel


class TextDefaults(Regularising, Updating, Dropping, Penalising, Stepping):
    """The value of each parameter that the study's space leaves out."""


class TextSettings(ModelSettings):
    """A network for texts: the embeddings of their tokens, pooled, then linear layers."""

    name: Literal["text"]
    dataset: DatasetField
    embedding: Annotated[
        Whole, Field(ge=1, le=MAX_WIDTH, description="numbers that a token becomes")
    ] = 64
    hidden: Annotated[
        tuple[Annotated[Whole, Field(ge=1, le=MAX_WIDTH)], ...],
        Field(max_length=8, description="widths of the linear layers before the last"),
    ] = ()
    activation: Literal["relu", "gelu", "tanh"] = "relu"
    pooling: Literal["mean", "sum"] = "mean"
    class_weights: WeightsField = None
    split: Split = Split()
    defaults: TextDefaults = TextDefaults()


class TextTask(ModelTask[TextSettings]):
    name = "text"
    settings = TextSettings
    parameters = parameters_of(TextDefaults)
    features = frozenset({"tokens"})
    targets = frozenset({"classes", "numbers"})
    metrics = metrics_of_all(targets)
    example = MappingProxyType({"name": "text", "dataset": "sms", "embedding": 16})

    def model(self, settings: TextSettings, features: Features, targets: Targets) -> ModuleModel:
        from ridgeline.search.engine.models.bags import bag_of_tokens
        from ridgeline.search.engine.models.module import ModuleModel

        assert isinstance(features, Tokens)
        return ModuleModel.of(
            bag_of_tokens,
            features.shape,
            targets.count,
            features.vocabulary_size,
            vocabulary=features.vocabulary_size,
            padding=PADDING,
            outputs=targets.count,
            embedding=settings.embedding,
            hidden=settings.hidden,
            activation=settings.activation,
            pooling=settings.pooling,
        )
