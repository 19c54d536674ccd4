"""What a person's module does that would be lost without a word, and so is refused by name."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

_TORCHS_OWN = frozenset(vars(nn.Module()))
"""Attributes that every module has: what it consists of, and hooks."""

_MAX_DEPTH = 4
"""Of lists in lists whose content is compared."""

_OPAQUE = object()
"""In place of what is not compared."""

State = Mapping[str, Any]


def refuse_hooks(module: nn.Module) -> None:
    """Refuse hooks on the gradients of parameters.

    Raises:
        ValueError: there is one.  A pack has gradients of its own, and would not call it.
    """
    for name, parameter in module.named_parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise ValueError(
                f"{name} has a hook on its gradient, which would not be called: change the "
                "gradient in the forward pass instead, by an autograd function or by hooks on "
                "what the layers give"
            )


def refuse_plain_tensors(module: nn.Module) -> None:
    """Refuse tensors that are neither parameters nor buffers, of a module that they stop.

    Raises:
        ValueError: there is one.
    """
    known = {id(tensor) for tensor in (*module.parameters(), *module.buffers())}
    for place, layer in module.named_modules():
        for name, value in _own_attributes(layer):
            if any(id(tensor) not in known for tensor in _tensors_in(value)):
                where = f"{place}.{name}" if place else name
                raise ValueError(
                    f"{where} is a plain tensor, which Ridgeline does not know of: make it a "
                    f'buffer, by register_buffer("{name}", …), or a parameter'
                )


def state_of(module: nn.Module) -> State:
    """Copies of the plain attributes of all layers: numbers, texts, tensors and lists of them."""
    return {
        f"{place}.{name}" if place else name: _copy(value)
        for place, layer in module.named_modules()
        for name, value in _own_attributes(layer)
    }


def refuse_changes(before: State, after: State) -> None:
    """Refuse attributes that a forward pass changes.

    One that was None or is new keeps what was worked out once, which is no state of training.

    Raises:
        ValueError: there is one.  A graph would hold the value of the pass that was traced, and a
            module that is used run by run would hand it from one run to the next.
    """
    for name, value in before.items():
        if value is None or name not in after or _is_same(value, after[name]):
            continue
        raise ValueError(
            f"its forward pass changes {name}, a plain attribute, which would not be kept from "
            "step to step: make it a buffer of real numbers, by register_buffer"
        )


def refuse_changes_of_made(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    """Refuse buffers that a forward pass has made and changes.

    Raises:
        ValueError: there is one.
    """
    for name, value in before.items():
        if name in after and not _is_same(value, after[name]):
            raise ValueError(
                f"its forward pass makes {name}, a buffer, and changes it, which would not be kept "
                "from step to step: register it where the module is built"
            )


def _own_attributes(layer: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, value in vars(layer).items():
        if name not in _TORCHS_OWN:
            yield name, value


def _tensors_in(value: Any, depth: int = 0) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple | deque) and depth < _MAX_DEPTH:
        for one in value.values() if isinstance(value, dict) else value:
            yield from _tensors_in(one, depth + 1)


def _copy(value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return value
    if isinstance(value, Tensor):
        # What has a gradient was worked out from the parameters, such as a normed weight.
        return _OPAQUE if value.grad_fn is not None else value.detach().clone()
    if depth < _MAX_DEPTH:
        if isinstance(value, dict):
            return [(_copy(k, depth + 1), _copy(v, depth + 1)) for k, v in value.items()]
        if isinstance(value, list | tuple | deque):
            return [_copy(one, depth + 1) for one in value]
        if isinstance(value, set | frozenset):
            return sorted(repr(one) for one in value)
    return _OPAQUE


def _is_same(one: Any, other: Any) -> bool:
    if one is _OPAQUE or other is _OPAQUE:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.allclose(one, other, equal_nan=True)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    return type(one) is type(other) and (one == other or (one != one and other != other))
