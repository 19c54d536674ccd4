"""Modules that are perceptrons with relu, to the last operation: they train by its native steps.

Whether a module is one is told by its graph, not by its classes: what is traced of it, forwards,
backwards and in evaluation, must be what is traced of a perceptron of torch's layers.

# K slots, B rows of a batch, D features
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ridgeline.search.engine.models.base import NativeProgram
from ridgeline.search.engine.models.mlp import Mlp
from ridgeline.search.engine.models.mlp_native import NativeMlp
from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.models.module_survey import trace_alone
from ridgeline.search.engine.models.module_template import Template, samples_of, template_of
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.spec import StepSpec

if TYPE_CHECKING:
    from ridgeline.search.engine.step import Region

_TRACED = ((2, torch.float32), (72, torch.float64))
"""Numbers of rows and types for which the graphs must agree: a module may go by either."""


class NativeModule(NativeProgram):
    """The native program of a module that is a perceptron.

    Args:
        names: of the module's parameters, by those that the perceptron has for them.
    """

    def __init__(self, perceptron: Mlp, names: Mapping[str, str]) -> None:
        self._native, self._names = NativeMlp(perceptron), names

    def bind_steps(
        self,
        kernels: Kernels,
        spec: StepSpec,
        inputs: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        regions: Sequence[Region],
    ) -> Callable[[int, int], None]:
        its = {name: gradients[own] for name, own in self._names.items()}
        return self._native.bind_steps(kernels, spec, self._renamed(inputs), its, regions)

    def bind_evaluation(
        self, kernels: Kernels, chunks: Sequence[Mapping[str, Tensor]]
    ) -> Callable[[int], None]:
        return self._native.bind_evaluation(kernels, [self._renamed(chunk) for chunk in chunks])

    def counts_show(
        self,
        spec: StepSpec,
        width: int,
        num_evaluated_rows: int,
        num_evaluated: int,
        *,
        with_onednn: bool | None,
    ) -> bool:
        return self._native.counts_show(
            spec, width, num_evaluated_rows, num_evaluated, with_onednn=with_onednn
        )

    def _renamed(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs as the perceptron has them: rows of D features, and names of its own."""
        its = {f"parameters.{n}": inputs[f"parameters.{own}"] for n, own in self._names.items()}
        return {**inputs, **its, "x": inputs["x"].flatten(1)}


@lru_cache(maxsize=64)
def native_of(model: ModuleModel) -> NativeModule | None:
    """The native program of a module; None where it is no perceptron with relu.

    Its parameters must come in the order of its layers, and dropout after every hidden layer or
    after none.
    """
    template = template_of(model)
    perceptron = _alike(model, template)
    if perceptron is None or not _is_same(model, template, perceptron):
        return None
    names = dict(zip(perceptron.parameters(), _ordered(template), strict=True))
    return NativeModule(perceptron, names)


def _ordered(template: Template) -> list[str]:
    """The weights, then the biases."""
    names = template.parts.parameters
    return [*names[::2], *names[1::2]]


def _alike(model: ModuleModel, template: Template) -> Mlp | None:
    """The perceptron that the module is, if its parameters' shapes and its dropout say all."""
    parts, survey = template.parts, template.survey
    if survey.obstacle is not None or parts.statistics or parts.constants or model.takes_ids:
        return None
    shapes = [template.shapes[name] for name in parts.parameters]
    weights = shapes[::2]
    if not all(len(shape) == 2 for shape in weights) or not model.shape:
        return None
    widths = [prod(model.shape), *(shape[0] for shape in weights)]
    expected = [its for d, h in pairwise(widths) for its in ((h, d), (h,))]
    if shapes != expected or widths[-1] != model.num_outputs:
        return None
    hidden = widths[1:-1]
    if survey.sites and [site.num_draws for site in survey.sites] != hidden:
        return None
    return Mlp(widths[0], tuple(hidden), widths[-1])


def _is_same(model: ModuleModel, template: Template, perceptron: Mlp) -> bool:
    """Whether the module computes what the perceptron does."""
    try:
        its = _graphs(model, template.module)
    except Exception:  # such as on so many rows: whoever trains it is told of it
        return False
    drops, is_flat = bool(template.survey.sites), len(model.shape) == 1
    return any(
        its == _graphs(model, _module_of(perceptron, drops=drops, views=views))
        for views in ((False, True) if is_flat else (True,))
    )


def _graphs(model: ModuleModel, module: nn.Module) -> list[str]:
    """All that is traced of a module."""
    graphs = []
    for num_rows, dtype in _TRACED:
        gradients, outputs = trace_alone(
            module, samples_of(model), model.num_outputs, model.num_draws, num_rows, dtype
        )
        graphs += [gradients.forward, gradients.backward, outputs]
    return [str(graph.graph) for graph in graphs]


class _Rows(nn.Module):
    """Samples as rows of numbers, by a view where they are such rows already, too."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), -1)


def _module_of(perceptron: Mlp, *, drops: bool, views: bool) -> nn.Module:
    layers: list[nn.Module] = [_Rows()] if views else []
    for num_in, num_out in pairwise(perceptron.widths):
        layers += [nn.Linear(num_in, num_out), nn.ReLU()]
        if drops:
            layers.append(nn.Dropout())
    return nn.Sequential(*layers[: -2 if drops else -1])
