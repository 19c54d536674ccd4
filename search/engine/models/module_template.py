"""The module that a `ModuleModel` describes, and all that is worked out about it once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor, nn

from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.models.module_alone import alone, begin_at, kept_generators
from ridgeline.search.engine.models.module_survey import (
    Samples,
    Survey,
    embedding_of,
    parts_of,
    penalised_of,
    survey,
    transposed_of,
)
from ridgeline.search.engine.models.module_tracing import Parts


@dataclass(frozen=True, eq=False)
class Template:
    """A module as the function builds it, and what is known about it.

    Attributes:
        module: is never run itself; copies of it are.
        shapes: of all parameters and buffers.
        constants: buffers of whole numbers.
        transposed: parameters whose first dimension counts inputs, not units.
        embedding: the parameter with a row for each id of the samples, if there is one.
    """

    module: nn.Module
    parts: Parts
    penalised: frozenset[str]
    transposed: frozenset[str]
    embedding: str | None
    shapes: dict[str, tuple[int, ...]]
    constants: list[Tensor]
    survey: Survey

    @property
    def name(self) -> str:
        """The module's class."""
        return type(self.module).__name__


def samples_of(model: ModuleModel) -> Samples:
    """What the model is fed with."""
    return Samples(model.shape, model.num_ids)


@lru_cache(maxsize=64)
def template_of(model: ModuleModel) -> Template:
    """Build the module and find out about it.

    Raises:
        ValueError: the function cannot be imported or gives no module; the module has nothing to
            train, or does not take the samples.
    """
    with kept_generators():
        module = _build(model, 0)
    tensors = _tensors(module)
    parts = parts_of(module)
    return Template(
        module=module,
        parts=parts,
        penalised=penalised_of(module),
        transposed=transposed_of(module),
        embedding=None if model.num_ids is None else embedding_of(module),
        shapes={name: tuple(tensor.shape) for name, tensor in tensors.items()},
        constants=[tensors[name] for name in parts.constants],
        survey=survey(module, samples_of(model), model.num_outputs),
    )


@lru_cache(maxsize=2)
def initial(model: ModuleModel, seeds: tuple[int, ...]) -> list[Mapping[str, Tensor]]:
    """See `ModuleModel.initial`; asked for twice in a row, for parameters and for statistics.

    Raises:
        ValueError: the function gives another module for one of the seeds.
    """
    template = template_of(model)
    with kept_generators():
        return [_initial(model, template, seed) for seed in seeds]


def _initial(model: ModuleModel, template: Template, seed: int) -> Mapping[str, Tensor]:
    tensors = _tensors(_build(model, seed))
    if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != template.shapes:
        raise ValueError(f"{model.factory} must give the same shapes for every seed")
    for name, constant in zip(template.parts.constants, template.constants, strict=True):
        if not tensors[name].equal(constant):
            raise ValueError(
                f"{name}, a buffer of whole numbers, must be the same for every seed: "
                "make it one of real numbers"
            )
    names = (*template.parts.parameters, *template.parts.statistics)
    return {name: tensors[name].detach() for name in names}


def _build(model: ModuleModel, seed: int) -> nn.Module:
    """Within `kept_generators`; alone once more, since it may leave settings to the next one."""
    function = _function(model)
    with alone():
        begin_at(seed)
        module = function(**json.loads(model.settings))
    if not isinstance(module, nn.Module):
        raise ValueError(f"{model.factory} must give an nn.Module, not {module!r}")
    return module


@lru_cache(maxsize=64)
def _function(model: ModuleModel) -> Callable[..., nn.Module]:
    """Import it once: to go alone takes a tenth of the time that a small module is built in."""
    with alone():
        return model.function()


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
