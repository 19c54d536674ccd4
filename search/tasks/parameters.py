"""The parameters that tasks of the engine share, in groups, each with its domain and its default.

A task puts groups together in a class of its own, whose fields are the defaults of a study:

    class MyDefaults(Updating, Dropping, Penalising, Stepping): ...

The fields come in the order of the groups, the last one first.  `parameters_of` tells what of it a
study may search, so nothing is said twice.  The names are those of the engine's `RunConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Literal, get_args

from ridgeline.search.fields import MAX_EPOCHS, SpecPart
from ridgeline.search.tasks.domain import Domain
from ridgeline.search.tasks.settings import MAX_BATCH_SIZE, MAX_COEFFICIENT


class Stepping(SpecPart):
    """How far a step goes, and on how many rows it rests."""

    learning_rate: Annotated[
        float,
        Domain(
            "float",
            "step size of the optimizer, the highest of the schedule",
            open_low=True,
            low=0,
            high=MAX_COEFFICIENT,
        ),
    ] = 1e-3
    batch_size: Annotated[
        int, Domain("int", "rows a step", low=1, high=MAX_BATCH_SIZE, listed=True)
    ] = 64


class Penalising(SpecPart):
    """What keeps weights small."""

    l1: Annotated[
        float, Domain("float", "λ of the L1 penalty, λ·Σ|w|", low=0, high=MAX_COEFFICIENT)
    ] = 0.0
    l2: Annotated[
        float, Domain("float", "λ of the L2 penalty, λ·Σw²", low=0, high=MAX_COEFFICIENT)
    ] = 0.0
    weight_decay: Annotated[
        float,
        Domain(
            "float",
            "decoupled weight decay: w -= learning_rate·λ·w",
            low=0,
            high=MAX_COEFFICIENT,
        ),
    ] = 0.0


class Dropping(SpecPart):
    """For models with hidden units."""

    dropout: Annotated[
        float, Domain("float", "share of hidden units dropped", low=0, high=1, open_high=True)
    ] = 0.0


class Updating(SpecPart):
    """How weights follow the gradient."""

    momentum: Annotated[
        float, Domain("float", "momentum of SGD", low=0, high=1, open_high=True)
    ] = 0.9
    nesterov: Annotated[bool, Domain("flag", "whether the momentum of SGD is Nesterov's")] = False
    optimizer: Annotated[Literal["sgd", "adam", "adamw"], Domain("choice", "update rule")] = "adam"
    schedule: Annotated[
        Literal["constant", "step", "cosine", "one_cycle"],
        Domain("choice", "how the learning rate goes over the run's steps"),
    ] = "constant"
    warmup: Annotated[
        float,
        Domain(
            "float",
            "share of the steps in which the rate rises; one_cycle does not read it",
            low=0,
            high=1,
            open_high=True,
        ),
    ] = 0.0
    clip_norm: Annotated[
        float,
        Domain(
            "float",
            "bound on the norm of the objective's gradient; 0 is none",
            low=0,
            high=MAX_COEFFICIENT,
        ),
    ] = 0.0


class Regularising(SpecPart):
    """What keeps a model from learning its training rows by heart, besides penalties."""

    max_norm: Annotated[
        float,
        Domain(
            "float",
            "bound on the norm of each unit's incoming weights; 0 is none",
            low=0,
            high=MAX_COEFFICIENT,
        ),
    ] = 0.0
    label_smoothing: Annotated[
        float,
        Domain(
            "float",
            "share of a target that is spread evenly over all classes in training",
            low=0,
            high=1,
            open_high=True,
            targets=frozenset({"classes"}),
        ),
    ] = 0.0
    gradient_noise: Annotated[
        float,
        Domain(
            "float",
            "variance of the noise on the gradient in the first step, from which it falls",
            low=0,
            high=MAX_COEFFICIENT,
        ),
    ] = 0.0


class DroppingInputs(SpecPart):
    """For samples of numbers, not of ids."""

    input_dropout: Annotated[
        float,
        Domain("float", "share of a sample's numbers dropped", low=0, high=1, open_high=True),
    ] = 0.0


class Augmenting(SpecPart):
    """For models of images as they are."""

    shift: Annotated[
        float,
        Domain("float", "pixels that an image moves at most, along each side", low=0, high=256),
    ] = 0.0
    flip: Annotated[
        float, Domain("float", "probability that left and right are swapped", low=0, high=1)
    ] = 0.0
    rotation: Annotated[
        float,
        Domain("float", "degrees that an image turns at most, to either side", low=0, high=180),
    ] = 0.0
    cutout: Annotated[
        float, Domain("float", "share of an image's area that is set to 0", low=0, high=1)
    ] = 0.0
    brightness: Annotated[
        float,
        Domain(
            "float",
            "what is added to an image or taken from it at most, in standard deviations",
            low=0,
            high=MAX_COEFFICIENT,
        ),
    ] = 0.0
    contrast: Annotated[
        float,
        Domain(
            "float",
            "share by which an image's differences from its mean grow or shrink at most",
            low=0,
            high=1,
        ),
    ] = 0.0
    input_noise: Annotated[
        float,
        Domain(
            "float",
            "standard deviation of the noise on each number, in those of the features",
            low=0,
            high=MAX_COEFFICIENT,
        ),
    ] = 0.0
    mixup: Annotated[
        float,
        Domain("float", "alpha of the shares by which rows are mixed; 0 is none", low=0, high=16),
    ] = 0.0


EPOCHS = Domain(
    "int",
    "passes over the training rows; budget.epochs where left out",
    low=1,
    high=MAX_EPOCHS,
)


def parameters_of(defaults: type[SpecPart]) -> Mapping[str, Domain]:
    """What may be searched by a study of a task with these defaults: each of them, and `epochs`.

    Every field has one `Domain` in its annotation; a choice's values are those of its Literal.
    """
    found: dict[str, Domain] = {}
    for name, field in defaults.model_fields.items():
        (domain,) = (one for one in field.metadata if isinstance(one, Domain))
        if domain.kind == "choice":
            domain = replace(domain, choices=get_args(field.annotation))
        found[name] = domain
    return MappingProxyType({**found, "epochs": EPOCHS})
