"""The settings of the installed tasks, as they stand in a study's spec."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from ridgeline.search.fields import MAX_EPOCHS, MAX_SEED, Flag, Real, SpecPart, Whole
from ridgeline.search.tasks.domain import Domain

DatasetName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=100)
]
"""A name, never a path: no separators and no dots."""

MAX_BATCH_SIZE = 65_536
MAX_WIDTH = 65_536
MAX_COEFFICIENT = 1e12


class Split(SpecPart):
    """How a data set is divided; stratified by class, drawn from `seed` alone."""

    validation: Annotated[
        Real, Field(gt=0, lt=0.9, description="share of the training rows kept for validation")
    ] = 0.2
    test: Annotated[
        Real,
        Field(
            gt=0,
            lt=0.9,
            description="share of all rows kept for test; "
            "not used where the data set has a test part of its own",
        ),
    ] = 0.2
    seed: Annotated[Whole, Field(ge=0, le=MAX_SEED)] = 0


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


class MlpSettings(SpecPart):
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

    metrics: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"validation_accuracy": "maximize", "validation_loss": "minimize"}
    )
    parameters: ClassVar[Mapping[str, Domain]] = MappingProxyType(
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


class ExternalSettings(SpecPart):
    """Trained by your own program, through trials:suggest, :report and :complete."""

    name: Literal["external"]
    description: Annotated[str, StringConstraints(max_length=2_000, pattern=r"^[^\x00]*$")] = ""


TaskSettings = Annotated[MlpSettings | ExternalSettings, Field(discriminator="name")]
