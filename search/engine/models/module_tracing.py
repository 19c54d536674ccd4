"""A module's forward and backward pass for a stack of slots, as graphs of plain operations.

`vmap` of `vjp` of the module's own forward pass is run once, on tensors without numbers, and every
operation of torch that it comes down to is written into a graph.  The graph is without side effects
and is cut where the loss comes in, so that any loss can be put between its two halves.

# K slots, B rows of a batch, C outputs, U draws of dropout a row
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from ridgeline.search.engine.alignment import ALIGNMENT, round_up
from ridgeline.search.engine.models.module_alone import alone
from ridgeline.search.engine.models.module_substitutes import Substitutes

_PAD = torch.ops.aten.constant_pad_nd.default
_SLICE = torch.ops.aten.slice.Tensor
_CLONE = torch.ops.aten.clone.default
_CONTIGUOUS = torch.contiguous_format

Function = Callable[..., Any]


class WithBuffers(nn.Module):
    """A module that gives its buffers too, as they are after its forward pass.

    So that one which is replaced, and not changed in place, is not lost.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The outputs, and the buffers by the names they have in the module."""
        return self.module(x), dict(self.module.named_buffers())


@dataclass(frozen=True)
class Parts:
    """The names of a module's tensors, by what becomes of them.

    Attributes:
        parameters: are trained.
        statistics: a slot's own, and changed by training: buffers and parameters kept as they are.
        constants: buffers of whole numbers, the same for all slots.
    """

    parameters: tuple[str, ...]
    statistics: tuple[str, ...]
    constants: tuple[str, ...]


@dataclass(frozen=True)
class Gradients:
    """The two halves of a training step of a stack.

    Attributes:
        forward: from parameters, statistics, constants, x, valid rows and what else was given, to
            outputs [K, B, C], new statistics, and what `backward` needs.
        backward: from the gradient of the outputs and what `forward` left, to the parameters'.
    """

    forward: fx.GraphModule
    backward: fx.GraphModule


def call(
    module: WithBuffers, tensors: Mapping[str, Tensor], x: Tensor, substitutes: Substitutes
) -> tuple[Tensor, dict[str, Tensor]]:
    """The module's outputs with these tensors for its own, and its buffers afterwards."""
    named = {f"module.{name}": tensor for name, tensor in tensors.items()}
    # Attention as plain products: the fused kernels cannot be batched.
    with substitutes, sdpa_kernel(SDPBackend.MATH):
        result: tuple[Tensor, dict[str, Tensor]] = torch.func.functional_call(module, named, (x,))
    return result


def trace_gradients(
    module: nn.Module,
    parts: Parts,
    parameters: Sequence[Tensor],
    statistics: Sequence[Tensor],
    constants: Sequence[Tensor],
    x_KB: Tensor,
    num_valid_K: Tensor,
    invalid_KB: Tensor | None,
    factors_KUB: Tensor | None,
    num_outputs: int,
) -> Gradients:
    """Trace a training step; of the tensors only shapes, strides and types matter.

    Raises:
        Unbatchable, RuntimeError: something in the module cannot be batched.
    """
    whole = WithBuffers(deepcopy(module).train())
    num_slots, num_rows = x_KB.shape[:2]
    gradient_KBC = parameters[0].new_zeros(num_slots, num_rows, num_outputs)
    optional = [t for t in (invalid_KB, factors_KUB) if t is not None]
    p, s, c = len(parameters), len(statistics), len(constants)

    def slot(*tensors: Tensor) -> tuple[Tensor, ...]:
        own, kept, fixed = tensors[:p], tensors[p : p + s], tensors[p + s : p + s + c]
        x_B, num_valid, *rest, gradient_BC = tensors[p + s + c :]
        invalid_B = rest.pop(0) if invalid_KB is not None else None
        factors_UB = rest.pop(0) if factors_KUB is not None else None

        def outputs(*own: Tensor) -> tuple[Tensor, list[Tensor]]:
            # A copy of what the module may write to: the transforms allow no other.
            named = dict(zip(parts.parameters, own, strict=True))
            named |= {n: t.clone() for n, t in zip(parts.statistics, kept, strict=True)}
            named |= {n: t.clone() for n, t in zip(parts.constants, fixed, strict=True)}
            substitutes = Substitutes(num_valid, invalid_B, factors_UB)
            y_BC, buffers = call(whole, named, x_B, substitutes)
            return y_BC, [buffers.get(name, named[name]) for name in parts.statistics]

        y_BC, back, new = torch.func.vjp(outputs, *own, has_aux=True)  # type: ignore[misc]
        return (y_BC, *new, *back(gradient_BC))

    by_slot = [*parameters, *statistics, *constants, x_KB, num_valid_K, *optional, gradient_KBC]
    dims = tuple(None if p + s <= i < p + s + c else 0 for i in range(len(by_slot)))
    graph = traced(_over_slots(slot, dims, num_slots), by_slot)
    return _cut(graph, num_forward=1 + s)


def trace_outputs(
    module: nn.Module,
    parts: Parts,
    parameters: Sequence[Tensor],
    statistics: Sequence[Tensor],
    constants: Sequence[Tensor],
    x_B: Tensor,
) -> fx.GraphModule:
    """Trace the outputs in evaluation mode of every slot on the same rows, [E, B, C].

    What the module writes to its parameters then is not kept.

    Raises:
        Unbatchable, RuntimeError: something in the module cannot be batched.
    """
    whole = WithBuffers(deepcopy(module).eval())
    names = [*parts.parameters, *parts.statistics, *parts.constants]
    num_rows = parameters[0].new_full((), x_B.shape[0])

    def slot(*tensors: Tensor) -> tuple[Tensor]:
        def outputs(*own: Tensor) -> Tensor:
            # A copy of what the module may write to: the transforms allow no other.
            rest = [t.clone() for t in tensors[len(own) : -1]]
            named = dict(zip(names, (*own, *rest), strict=True))
            return call(whole, named, tensors[-1], Substitutes(num_rows, None, None))[0]

        # As if for a gradient: operations that have no batching rule themselves, such as a GRU, are
        # then broken down into those that have one.
        return (torch.func.vjp(outputs, *tensors[: len(parameters)])[0],)

    given = [*parameters, *statistics, *constants, x_B]
    num_stacked, num_slots = len(parameters) + len(statistics), len(parameters[0])
    dims = (*(0 for _ in range(num_stacked)), *(None for _ in constants), 0)
    over_slots = _over_slots(slot, dims, num_slots)

    def outputs_of_all(*tensors: Tensor) -> tuple[Tensor]:
        # Rows of each slot's own: of common ones, torch makes one product or convolution for the
        # weights of all slots, in which a slot's bits depend on its place.
        *stacked, x_B = tensors
        result: tuple[Tensor] = over_slots(*stacked, x_B.expand(num_slots, *x_B.shape))
        return result

    graph = traced(outputs_of_all, given)
    for node in graph.graph.find_nodes(op="call_function", target=torch.ops.aten.copy_.default):
        if node.args[0].op == "placeholder":
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def _over_slots(slot: Function, dims: tuple[int | None, ...], num_slots: int) -> Function:
    if num_slots > 1:
        return torch.func.vmap(slot, in_dims=dims, randomness="error")

    def alone(*tensors: Tensor) -> tuple[Tensor, ...]:
        # Of a single slot without vmap, which would lay convolutions out as grouped ones.
        own = [t if dim is None else _laid_out(t[0]) for t, dim in zip(tensors, dims, strict=True)]
        return tuple(t[None] for t in slot(*own))

    return alone


def _laid_out(tensor: Tensor) -> Tensor:
    """Images and the weights of their convolutions with the channels last, on a CPU.

    Its convolutions copy them otherwise, each of them forwards and backwards.
    """
    if tensor.dim() != 4 or tensor.device.type != "cpu":
        return tensor
    laid_out = tensor.contiguous(memory_format=torch.channels_last)
    _, num_channels, height, width = tensor.shape
    if num_channels > 1:
        return laid_out
    # Of a single channel both orders are one.  Said so, it is the order of what comes of it too.
    return laid_out.as_strided(tensor.shape, (height * width, 1, width, 1))


def traced(function: Function, tensors: Sequence[Tensor]) -> fx.GraphModule:
    """The function as a graph without side effects."""
    with alone(), torch.no_grad():
        graph = make_fx(function, tracing_mode="fake")(*tensors)
        graph = make_fx(torch.func.functionalize(graph), tracing_mode="fake")(*tensors)
    graph.graph.eliminate_dead_code()
    _align_products(graph)
    graph.recompile()
    return graph


def _align_products(graph: fx.GraphModule) -> None:
    """Have every slot's part of a product begin on a line of its own, to the bit the same kernel.

    By padding columns of what does not; what the factors are views of is aligned with them.
    """
    bmm = torch.ops.aten.bmm.default
    for node in graph.graph.find_nodes(op="call_function", target=bmm):
        left, right = node.args
        num_rows, num_columns = node.meta["val"].shape[1:]
        with graph.graph.inserting_before(node):
            left = _aligned(graph.graph, left)
            if num_rows * num_columns % ALIGNMENT == 0:
                node.args = left, _aligned(graph.graph, right)
                continue
            missing = round_up(num_columns) - num_columns
            padded = graph.graph.call_function(_PAD, (right, [0, missing]))
            product = graph.graph.call_function(bmm, (left, padded))
            columns = graph.graph.call_function(_SLICE, (product, 2, 0, num_columns))
        # As `bmm` gives it: what comes after may view it in other shapes.
        with graph.graph.inserting_after(columns):
            whole = graph.graph.call_function(_CLONE, (columns,), {"memory_format": _CONTIGUOUS})
        node.replace_all_uses_with(whole)
        graph.graph.erase_node(node)


def _aligned(graph: fx.Graph, factor: fx.Node) -> fx.Node:
    value = factor.meta["val"]
    if value.stride(0) % ALIGNMENT == 0:
        return factor
    num_columns = value.shape[2]
    padded = graph.call_function(_PAD, (factor, [0, round_up(num_columns) - num_columns]))
    return graph.call_function(_SLICE, (padded, 2, 0, num_columns))


def _cut(whole: fx.GraphModule, num_forward: int) -> Gradients:
    """Cut a graph before the first use of its last input, the gradient of the outputs."""
    gradient = list(whole.graph.find_nodes(op="placeholder"))[-1]
    (end,) = whole.graph.find_nodes(op="output")
    results: tuple[fx.Node, ...] = tuple(end.args[0])
    later = {gradient}
    for node in whole.graph.nodes:
        if node is not end and any(needed in later for needed in node.all_input_nodes):
            later.add(node)

    first, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in whole.graph.nodes:
        if node is not end and node not in later:
            copies[node] = first.node_copy(node, copies.__getitem__)
    needed = dict.fromkeys(n for node in later for n in node.all_input_nodes if n not in later)
    needed |= dict.fromkeys(n for n in results[num_forward:] if n not in later)
    # In the graph's order: a set of nodes has another one in every process.
    saved = [node for node in whole.graph.nodes if node in needed]
    first.output(tuple(copies[node] for node in (*results[:num_forward], *saved)))

    second, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    copies[gradient] = second.placeholder("gradient")
    for i, node in enumerate(saved):
        copies[node] = second.placeholder(f"saved_{i}")
    for node in whole.graph.nodes:
        if node in later and node is not gradient:
            copies[node] = second.node_copy(node, copies.__getitem__)
    second.output(tuple(copies[node] for node in results[num_forward:]))
    forward, backward = fx.GraphModule(whole, first), fx.GraphModule(whole, second)
    for graph in (forward, backward):
        graph.graph.lint()
    return Gradients(forward, backward)
