"""What the hidden units of a person's module give, seen while it runs once in evaluation mode.

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
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ridgeline.search.engine.models.base import HiddenActivation, HiddenUnits
from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.models.module_alone import alone
from ridgeline.search.engine.models.module_substitutes import Substitutes
from ridgeline.search.engine.models.module_template import template_of
from ridgeline.search.engine.models.module_tracing import WithBuffers, call

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
    first = next(iter(parameters.values()))
    with alone():
        watch = _watch(model, first.device, first.dtype)
        watch.begin(len(x_B))
        named = {name: tensor.clone() for name, tensor in {**parameters, **statistics}.items()}
        num_rows = first.new_full((), len(x_B))
        try:
            with torch.no_grad(), watch:
                y, _ = call(
                    WithBuffers(watch.module),
                    named,
                    x_B.clone(),
                    Substitutes(num_rows, None, None),
                )
            return watch.hidden(y)  # before the next one may begin, which could be another thread's
        except Exception as exc:  # nothing is lost but what would have been seen
            _log.warning("the units of %s are not told: %s", template.name, exc)
            return {}
        finally:
            watch.begin(0)  # or it would hold what the last activation gave


@lru_cache(maxsize=16)
def _watch(model: ModuleModel, device: torch.device, dtype: torch.dtype) -> _Watch:
    """A copy of the module that is watched, kept: to make one takes as long as its pass."""
    return _Watch(deepcopy(template_of(model).module).to(device, dtype).eval())


class _Watch(TorchFunctionMode):
    """Notes what activations of a module give."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.begin(0)
        for name, layer in module.named_modules():
            layer.register_forward_pre_hook(
                lambda layer, _, name=name: self._path.append((name, layer))
            )
            layer.register_forward_hook(lambda *_: self._leave())

    def begin(self, num_rows: int) -> None:
        """Forget what was seen, for a pass over so many rows."""
        self._num_rows = num_rows
        self._found: dict[str, list[HiddenUnits | None]] = defaultdict(list)
        """By the name of a place, what each of its calls gave; None where that is not known."""
        self._last: tuple[str, Tensor] | None = None
        self._dimensions: dict[tuple[int, ...], int] = {}
        """By the shape of what layers gave, which dimension counts their units."""
        self._path: list[tuple[str, nn.Module]] = []

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
