"""What the hidden units of a person's module give, seen while it is traced in evaluation mode.

Seen are calls of relu, tanh and sigmoid, by a layer of torch or by a function.  Which dimension of
what they give counts units is known of rows of numbers, and of what has the shape that a
convolution, a linear layer or an embedding gave before; other calls are passed over.

# B rows of a batch
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ridgeline.search.engine.models.base import HiddenActivation, HiddenUnits
from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.models.module_alone import alone
from ridgeline.search.engine.models.module_stack import Like, constants_of
from ridgeline.search.engine.models.module_substitutes import Substitutes
from ridgeline.search.engine.models.module_template import template_of
from ridgeline.search.engine.models.module_tracing import WithBuffers, call, traced

_log = logging.getLogger(__name__)

MOST_CALLS = 8
"""What is called more often goes on step by step: its units would be told once for each step."""

MOST_LAYERS = 128
"""Of a module that has more no unit is told: measures are to stay small."""

_Function = Callable[..., Any]

_ACTIVATIONS: dict[_Function, HiddenActivation] = {
    functional.relu: "relu",
    functional.relu_: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    Tensor.relu: "relu",
    Tensor.relu_: "relu",
    torch.tanh: "tanh",
    torch.tanh_: "tanh",
    Tensor.tanh: "tanh",
    Tensor.tanh_: "tanh",
    torch.sigmoid: "sigmoid",
    torch.sigmoid_: "sigmoid",
    Tensor.sigmoid: "sigmoid",
    Tensor.sigmoid_: "sigmoid",
}

_LAYERS = (nn.ReLU, nn.Tanh, nn.Sigmoid)

_UNITS_LAST = {functional.linear, functional.embedding}
_UNITS_SECOND = {
    torch.conv1d,
    torch.conv2d,
    torch.conv3d,
    torch.conv_transpose1d,
    torch.conv_transpose2d,
    torch.conv_transpose3d,
}


def hidden_of_one(
    model: ModuleModel,
    parameters: Mapping[str, Tensor],
    statistics: Mapping[str, Tensor],
    x_B: Tensor,
) -> Mapping[str, HiddenUnits]:
    """The hidden units of one slot by the layer that calls the activation, in evaluation mode.

    A call by a function has the name of the module whose forward calls it, and the activation's;
    the second call of a name ends with `:2`, and so on, up to MOST_CALLS.  What the module itself
    gives is not hidden.  Empty where the module cannot be batched: then nothing is known of what it
    does.
    """
    template = template_of(model)
    if template.survey.obstacle is not None:
        return {}
    parts = template.parts
    tensors = [parameters[name] for name in parts.parameters]
    tensors += [statistics[name] for name in parts.statistics]
    tensors += constants_of(model, x_B.device)
    watched = _watched(model, tuple(Like.of(tensor) for tensor in tensors), Like.of(x_B))
    if watched.graph is None:
        return {}
    seen = watched.graph.forward(*tensors, x_B)
    return {
        name: HiddenUnits(activation, seen_H, num_values)
        for (name, activation, num_values), seen_H in zip(watched.layers, seen, strict=True)
    }


class _Watched(NamedTuple):
    """What a pass gives of hidden units, as a graph.

    Attributes:
        layers: the name, activation and number of values of each; its units are what `graph` gives
            from parameters, statistics, constants and x; None where nothing can be seen.
    """

    graph: fx.GraphModule | None
    layers: list[tuple[str, HiddenActivation, int]]


@lru_cache(maxsize=128)
def _watched(model: ModuleModel, tensors: tuple[Like, ...], rows_B: Like) -> _Watched:
    """Trace a pass over tensors like these."""
    template = template_of(model)
    parts = template.parts
    names = (*parts.parameters, *parts.statistics, *parts.constants)
    layers: list[tuple[str, HiddenActivation, int]] = []

    def seen(*given: Tensor) -> tuple[Tensor, ...]:
        *own, x_B = (tensor.clone() for tensor in given)  # which the module may write to
        named = dict(zip(names, own, strict=True))
        substitutes = Substitutes(own[0].new_full((), len(x_B)), None, None)
        with watch:
            y, _ = call(WithBuffers(watch.module), named, x_B, substitutes)
        hidden = watch.hidden(y)
        layers[:] = [(name, its.activation, its.num_values) for name, its in hidden.items()]
        return tuple(its.seen_H for its in hidden.values())

    try:
        with alone():
            watch = _Watch(deepcopy(template.module).eval(), rows_B.shape[0])
        graph = traced(seen, [like.empty() for like in (*tensors, rows_B)])
    except Exception as exc:  # nothing is lost but what would have been seen
        _log.warning("the units of %s are not told: %s", template.name, exc)
        return _Watched(None, [])
    return _Watched(graph, layers)


class _Watch(TorchFunctionMode):
    """Notes what activations of a module give."""

    def __init__(self, module: nn.Module, num_rows: int) -> None:
        super().__init__()
        self.module = module
        self._num_rows = num_rows
        self._found: dict[str, list[HiddenUnits | None]] = defaultdict(list)
        """By the name of a place, what each of its calls gave; None where that is not known."""
        self._last: tuple[str, Tensor] | None = None
        self._dimensions: dict[tuple[int, ...], int] = {}
        """By the shape of what layers gave, which dimension counts their units."""
        self._path: list[tuple[str, nn.Module]] = []
        for name, layer in module.named_modules():
            layer.register_forward_pre_hook(
                lambda layer, _, name=name: self._path.append((name, layer))
            )
            layer.register_forward_hook(lambda *_: self._leave())

    def __torch_function__(
        self,
        func: _Function,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function."""
        result = func(*args, **(kwargs or {}))
        if func in _UNITS_LAST:
            self._dimensions[tuple(result.shape)] = result.dim() - 1
        elif func in _UNITS_SECOND:
            self._dimensions[tuple(result.shape)] = 1
        elif (activation := _ACTIVATIONS.get(func)) is not None:
            self._note(activation, result)
        return result

    def hidden(self, outputs: Tensor) -> Mapping[str, HiddenUnits]:
        """What was seen of a pass that has given these outputs."""
        if self._last is not None and self._last[1] is outputs:
            self._found[self._last[0]][-1] = None
        found = {
            place if number == 1 else f"{place}:{number}": units
            for place, calls in self._found.items()
            if len(calls) <= MOST_CALLS
            for number, units in enumerate(calls, start=1)
            if units is not None
        }
        return found if len(found) <= MOST_LAYERS else {}

    def _note(self, activation: HiddenActivation, values: Tensor) -> None:
        place, layer = self._path[-1]
        if not isinstance(layer, _LAYERS):
            place = f"{place}.{activation}" if place else activation
        self._last = place, values
        shape = tuple(values.shape)
        dimension = 1 if len(shape) == 2 else self._dimensions.get(shape)
        units: HiddenUnits | None = None
        if dimension is not None and shape[0] == self._num_rows:
            # At once: the module may write to them afterwards.
            units = HiddenUnits.of(activation, values, dimension)
        self._found[place].append(units)

    def _leave(self) -> None:
        # Gives nothing, for what a hook gives stands in for what the layer gave.
        self._path.pop()
