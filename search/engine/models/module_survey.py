"""What a person's module consists of, and what in it stands in the way of a pack.

Found by running a copy of the module on a few rows: once watched operation by operation, then with
other numbers in the rows that do not count.

# B rows of a batch
"""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ridgeline.search.engine.models.module_alone import alone
from ridgeline.search.engine.models.module_refusals import (
    refuse_changes,
    refuse_changes_of_made,
    refuse_hooks,
    refuse_plain_tensors,
    state_of,
)
from ridgeline.search.engine.models.module_substitutes import DropoutSite, Substitutes, Unbatchable
from ridgeline.search.engine.models.module_tracing import (
    Gradients,
    Parts,
    WithBuffers,
    call,
    trace_gradients,
    trace_outputs,
)

_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)

_BATCH_COUNT = "num_batches_tracked"
"""A buffer of torch's batch norms that nothing of ours reads."""

_ROWS = 4
"""Of the batch that a module is tried with; the last one does not count."""


_TOLERANCES = {torch.float64: (1e-9, 1e-12), torch.float32: (1e-4, 1e-5)}
"""Relative and absolute, within which outputs for the same rows agree."""


@dataclass(frozen=True)
class Samples:
    """What a model is fed with.

    Attributes:
        shape: of one sample.
        num_ids: whole numbers below this; None for real numbers.
    """

    shape: tuple[int, ...]
    num_ids: int | None = None

    def random(self, size: Sequence[int], generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """So many samples of random numbers, [*size, *shape], on the CPU."""
        shape = (*size, *self.shape)
        if self.num_ids is None:
            return torch.randn(shape, generator=generator, dtype=dtype)
        return torch.randint(self.num_ids, shape, generator=generator)


@dataclass(frozen=True)
class Survey:
    """What was found out about a module.

    Attributes:
        sites: its calls of dropout in training that drop anything.
        forward_flops, step_flops: of products and convolutions, for a row.
        numbers_per_row: of memory: the sample, and what the operations of a step give.
        convolves: whether any of its operations is a convolution.
        obstacle: why it cannot be batched, in one sentence; None where nothing is known.
    """

    sites: tuple[DropoutSite, ...]
    forward_flops: int
    step_flops: int
    numbers_per_row: int
    convolves: bool
    obstacle: str | None

    @property
    def num_draws(self) -> int:
        """Of dropout, for a row."""
        return sum(site.num_draws for site in self.sites)


def parts_of(module: nn.Module) -> Parts:
    """The names of a module's tensors.

    Raises:
        ValueError: it has no parameters to train, or some without a size.
    """
    parameters: list[str] = []
    statistics: list[str] = []
    constants: list[str] = []
    for name, parameter in module.named_parameters():
        if nn.parameter.is_lazy(parameter):
            raise ValueError(f"{name} has no size yet: give lazy modules their sizes")
        if not parameter.is_floating_point():
            raise ValueError(f"{name} is {parameter.dtype}: parameters must be real numbers")
        if not parameter.numel():
            raise ValueError(f"{name} has no elements: leave it out, or give it a size")
        (parameters if parameter.requires_grad else statistics).append(name)
    for name, buffer in module.named_buffers():
        if buffer.is_complex():
            raise ValueError(f"{name} is {buffer.dtype}: buffers must be real or whole numbers")
        (statistics if buffer.is_floating_point() else constants).append(name)
    if not parameters:
        raise ValueError("the module has no parameters to train")
    return Parts(tuple(parameters), tuple(statistics), tuple(constants))


def penalised_of(module: nn.Module) -> frozenset[str]:
    """The parameters that l1, l2 and weight decay act on.

    Those of two or more dimensions: weights of linear layers, convolutions and embeddings, but not
    those of norms, whatever their shape.
    """
    in_norms = {
        id(parameter)
        for layer in module.modules()
        if isinstance(layer, _NORMS)
        for parameter in layer.parameters(recurse=False)
    }
    return frozenset(
        name
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and parameter.dim() >= 2 and id(parameter) not in in_norms
    )


def transposed_of(module: nn.Module) -> frozenset[str]:
    """The weights of transposed convolutions, which torch lays out with the inputs first."""
    weights = {
        id(layer.weight)
        for layer in module.modules()
        if isinstance(layer, nn.modules.conv._ConvTransposeNd)
    }
    return frozenset(name for name, p in module.named_parameters() if id(p) in weights)


def embedding_of(module: nn.Module) -> str | None:
    """The weights of its embedding; None where it has none, or several."""
    layers = [
        layer for layer in module.modules() if isinstance(layer, nn.Embedding | nn.EmbeddingBag)
    ]
    if len(layers) != 1:
        return None
    weights = id(layers[0].weight)
    return next((name for name, p in module.named_parameters() if id(p) == weights), None)


def survey(module: nn.Module, samples: Samples, num_outputs: int) -> Survey:
    """Find out about a module.

    Raises:
        ValueError: it does not take the samples, or does not give so many outputs a row; or what it
            does would be lost.
    """
    refuse_hooks(module)
    with alone():
        trial, watch = _watched(module, samples, num_outputs)
        trial.refuse_changes()
        obstacle = watch.obstacle or trial.obstacle(watch)
        if obstacle is None:
            obstacle = _untraceable(module, samples, num_outputs, watch)
    return Survey(
        tuple(watch.sites),
        watch.forward_flops // _ROWS,
        watch.step_flops // _ROWS,
        math.prod(samples.shape) + watch.numbers // _ROWS,
        watch.convolves,
        None if obstacle is None else f"{type(module).__name__}: {obstacle}",
    )


def _watched(module: nn.Module, samples: Samples, num_outputs: int) -> tuple[_Trial, _Run]:
    """A trial in float64, which tells small differences; in float32 where the module wants that."""
    trial = _Trial(module, samples, num_outputs, torch.float64)
    with suppress(Exception):
        return trial, trial.run(watched=True)
    trial = _Trial(module, samples, num_outputs, torch.float32)
    return trial, trial.run(watched=True)


def _untraceable(module: nn.Module, samples: Samples, num_outputs: int, watch: _Run) -> str | None:
    """Why a single slot cannot be traced, in training and evaluation; None where it can.

    Raises:
        ValueError: because of a tensor that is no buffer.
    """
    num_draws = sum(site.num_draws for site in watch.sites)
    try:
        trace_alone(module, samples, num_outputs, num_draws, _ROWS, torch.float32)
    except Exception as exc:
        reason = str(exc).partition("\n")[0]
        if "FakeTensor" in reason:
            refuse_plain_tensors(module)
        return f"it cannot be traced ({type(exc).__name__}: {reason})"
    return None


def trace_alone(
    module: nn.Module,
    samples: Samples,
    num_outputs: int,
    num_draws: int,
    num_rows: int,
    dtype: torch.dtype,
) -> tuple[Gradients, fx.GraphModule]:
    """The training step and the outputs in evaluation of a single slot, on so many rows.

    The last row of the step does not count.

    Args:
        num_draws: of dropout, for a row.

    Raises:
        Exception: it cannot be traced.
    """
    parts = parts_of(module)
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    own, kept = (
        [tensors[name].detach().to(dtype)[None] for name in names]
        for names in (parts.parameters, parts.statistics)
    )
    own_kept = own, kept, [tensors[name] for name in parts.constants]
    x_KB = samples.random((1, num_rows), torch.Generator().manual_seed(0), dtype)
    num_valid_K = torch.tensor([num_rows - 1.0], dtype=dtype)
    invalid_KB = torch.arange(num_rows)[None] == num_rows - 1
    factors_KUB = torch.ones(1, num_draws, num_rows, dtype=dtype) if num_draws else None
    gradients = trace_gradients(
        module, parts, *own_kept, x_KB, num_valid_K, invalid_KB, factors_KUB, num_outputs
    )
    return gradients, trace_outputs(module, parts, *own_kept, x_KB[0])


@dataclass
class _Run:
    """One run of a module in training mode, and what came of it."""

    y_BC: Tensor
    buffers: dict[str, Tensor]
    sites: list[DropoutSite]
    obstacle: str | None = None
    forward_flops: int = 0
    step_flops: int = 0
    numbers: int = 0
    convolves: bool = False


class _Trial:
    """Runs copies of a module on a few rows of which the last does not count."""

    def __init__(
        self, module: nn.Module, samples: Samples, num_outputs: int, dtype: torch.dtype
    ) -> None:
        self._module = deepcopy(module).to(dtype)
        self._dtype = dtype
        self._num_outputs = num_outputs
        generator = torch.Generator().manual_seed(0)
        self._x_B = samples.random((_ROWS,), generator, dtype)
        self._other_x_B = self._x_B.clone()
        self._other_x_B[-1] = samples.random((1,), generator, dtype)[0]

    def run(self, *, watched: bool = False, other_padding: bool = False) -> _Run:
        """Run a fresh copy; forwards only unless it is watched."""
        module = deepcopy(self._module).train()
        x_B = (self._other_x_B if other_padding else self._x_B).clone()
        x_version = x_B._version
        invalid_B = torch.arange(_ROWS) == _ROWS - 1
        substitutes = Substitutes(torch.tensor(_ROWS - 1.0, dtype=self._dtype), invalid_B, None)
        named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        versions = {name: t._version for name, t in named.items()}
        watch = _Watch(module)
        counter = FlopCounterMode(display=False)
        counter.mod_tracker = _NoTracker()  # type: ignore[assignment]
        with counter if watched else nullcontext(), watch if watched else nullcontext():
            try:
                y_BC, buffers = call(WithBuffers(module), named, x_B, substitutes)
            except Unbatchable as exc:
                empty = torch.zeros(0)
                return _Run(empty, {}, substitutes.sites, f"{watch.place}: {exc}")
            self._check(y_BC)
            forward_flops = counter.get_total_flops()
            if watched:
                y_BC.sum().backward()  # type: ignore[no-untyped-call]
        obstacle = watch.obstacle
        if obstacle is None and x_B._version != x_version:
            obstacle = "it writes to the rows that it is given"
        # One that the forward pass makes holds what was worked out once: see `refuse_changes`.
        buffers = {name: buffer for name, buffer in buffers.items() if name in named}
        for name, buffer in buffers.items():
            self._check_buffer(name, buffer, named[name])
            changed = buffer is not named[name] or buffer._version != versions[name]
            is_whole = not buffer.is_floating_point() and not name.endswith(_BATCH_COUNT)
            if obstacle is None and changed and is_whole:
                obstacle = f"it changes {name}, a buffer of whole numbers, in its forward pass"
        y_BC = y_BC.detach()
        total_flops = counter.get_total_flops()
        sites = substitutes.sites
        return _Run(
            y_BC,
            buffers,
            sites,
            obstacle,
            forward_flops,
            total_flops,
            watch.numbers,
            watch.convolves,
        )

    def obstacle(self, first: _Run) -> str | None:
        """What shows only by comparing runs."""
        before = _foreign_generators()
        again = self.run()
        if _foreign_generators() != before:
            return "it draws random numbers from Python or numpy in its forward pass"
        if not _agree(first, again, self._dtype):
            return "it gives other outputs for the same weights and rows when it is called again"
        if not _agree(first, self.run(other_padding=True), self._dtype):
            return (
                "its outputs depend on the other rows of the batch, so rows that only pad a batch "
                "would change them"
            )
        return None

    def refuse_changes(self) -> None:
        """Refuse plain attributes, and buffers of its own making, that a forward pass changes.

        Raises:
            ValueError: there is one.
        """
        module = deepcopy(self._module).train()
        known = {name for name, _ in module.named_buffers()}
        num_valid = torch.tensor(_ROWS, dtype=self._dtype)
        for _ in range(2):  # what the first pass alone sets is no state of training
            named = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            before = state_of(module)
            made = {n: b.clone() for n, b in module.named_buffers() if n not in known}
            with suppress(Unbatchable):
                x_B = self._x_B.clone()
                call(WithBuffers(module), named, x_B, Substitutes(num_valid, None, None))
            refuse_changes(before, state_of(module))
            refuse_changes_of_made(made, dict(module.named_buffers()))

    def _check_buffer(self, name: str, buffer: Tensor, before: Tensor) -> None:
        if buffer.shape != before.shape:
            raise ValueError(
                f"its forward pass gives {name}, a buffer, the shape {list(buffer.shape)} in place "
                f"of {list(before.shape)}: a buffer must keep its shape"
            )

    def _check(self, y_BC: Any) -> None:
        shape = list(y_BC.shape) if isinstance(y_BC, Tensor) else type(y_BC).__name__
        if shape != [_ROWS, self._num_outputs]:
            raise ValueError(
                f"{type(self._module).__name__} must give {self._num_outputs} outputs a row, "
                f"[{_ROWS}, {self._num_outputs}] for {_ROWS} rows, not {shape}"
            )
        if not y_BC.is_floating_point():
            name = type(self._module).__name__
            raise ValueError(f"{name} must give real numbers, not {y_BC.dtype}")
        if not y_BC.requires_grad:
            raise ValueError(
                f"the outputs of {type(self._module).__name__} have no gradient, so nothing can be "
                "learned: they do not depend on its parameters, or are worked out apart from them, "
                "as by detach() or no_grad()"
            )


def _foreign_generators() -> tuple[object, bytes]:
    """The states of Python's and numpy's generators, to be compared."""
    return random.getstate(), pickle.dumps(np.random.get_state())


def _agree(one: _Run, other: _Run, dtype: torch.dtype) -> bool:
    rtol, atol = _TOLERANCES[dtype]
    pairs = [(one.y_BC[:-1], other.y_BC[:-1])]
    pairs += [(buffer, other.buffers[name]) for name, buffer in one.buffers.items()]
    return all(torch.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True) for a, b in pairs)


_OBSTACLES = {
    torch.Tag.nondeterministic_seeded: "draws random numbers of its own",
    torch.Tag.data_dependent_output: (
        "reads a value out of a tensor, as control flow that depends on the data does"
    ),
    torch.Tag.dynamic_output_shape: "makes a tensor whose shape depends on values",
}


def _has_mask(indices: Sequence[Tensor | None]) -> bool:
    return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in indices)


class _NoTracker:
    """In place of torch's, whose hooks on tensors end a gradient that a module works out itself."""

    parents: ClassVar[set[str]] = {"Global"}

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class _Watch(TorchDispatchMode):
    """Notes each operation, and the first that cannot be batched.

    Attributes:
        numbers: that the operations gave so far.
        convolves: whether one of them was a convolution.
        obstacle: None where there is none.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0
        self.convolves = False
        self.obstacle: str | None = None
        self._path: list[str] = []
        for name, layer in module.named_modules():
            place = f"{name} ({type(layer).__name__})" if name else "its own forward"
            layer.register_forward_pre_hook(lambda *_, place=place: self._path.append(place))
            layer.register_forward_hook(lambda *_: self._leave())

    @property
    def place(self) -> str:
        """The layer that runs now."""
        return self._path[-1] if self._path else "its own forward"

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call the operation."""
        result = func(*args, **(kwargs or {}))
        outputs = result if isinstance(result, tuple | list) else [result]
        if not func.is_view:
            self.numbers += sum(t.numel() for t in outputs if isinstance(t, Tensor))
        self.convolves |= func is torch.ops.aten.convolution.default
        if self.obstacle is None:
            self.obstacle = self._obstacle(func, args)
        return result

    def _obstacle(self, func: Any, args: tuple[Any, ...]) -> str | None:
        if func is torch.ops.aten.index.Tensor and not _has_mask(args[1]):
            return None  # whose shape depends on values only where an index is a mask
        for tag, what in _OBSTACLES.items():
            if tag in func.tags:
                return f"{self.place} {what} ({func})"
        return None

    def _leave(self) -> None:
        self._path.pop()
