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
