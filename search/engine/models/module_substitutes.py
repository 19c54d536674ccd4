"""What stands in for the functions of torch that would break the contracts of a pack.

A module's own code runs, but six kinds of function in it are ours while it does:

* dropout multiplies with factors that were drawn before, by counted randomness;
* batch norm takes its statistics from the rows that count, and follows a slot's own running ones;
* an LSTM is made of products, whose gradient can be batched and traced; torch's own cannot;
* an embedding bag is a gather and a sum, which can be batched; torch's own cannot;
* max pooling whose windows do not overlap is made of comparisons, which can be compiled well;
* a view of images, which may lie in memory with their channels last, is a copy where it has to be.

Functions are replaced, not modules, so that `nn.Dropout`, a call of `functional.dropout` and a
subclass of `nn.BatchNorm2d` are all treated alike, and a dropout layer that is used twice draws
twice.

# B rows of a batch, C channels, … what comes after them, U draws of dropout a row, T tokens a row
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ridgeline.search.engine.models.module_recurrent import lstm

MOMENTUM_NEEDED = (
    "batch norm with momentum=None averages over the number of batches so far; "
    "give it a momentum, such as 0.1"
)


_MAX_WINDOW = 9
"""Numbers of a window of max pooling, up to which it is made of comparisons."""


class Unbatchable(Exception):
    """Something in a module cannot be batched; the message says what."""


@dataclass(frozen=True)
class DropoutSite:
    """One call of dropout in a module's forward pass.

    Attributes:
        probability: what the module itself asks for.
        num_draws: a row.
    """

    probability: float
    num_draws: int


class Substitutes(TorchFunctionMode):
    """While it is entered, a module keeps to the contracts of a slot.

    Args:
        num_valid: how many rows of the batch count, as a tensor of no dimensions.
        invalid_B: which rows do not count; None where all do.
        factors_UB: what dropout multiplies with; None drops nothing.
        found: the calls of dropout that are known, of a module that is taken slot by slot, without
            rows that do not count.  Only its dropout may be of a tensor whose first dimension is
            not the rows, and its calls may differ with the data.

    Attributes:
        sites: the calls of dropout so far, in order, but for those that drop nothing.
    """

    def __init__(
        self,
        num_valid: Tensor,
        invalid_B: Tensor | None,
        factors_UB: Tensor | None,
        *,
        found: Sequence[DropoutSite] | None = None,
    ) -> None:
        super().__init__()
        self.sites: list[DropoutSite] = []
        self._found = found
        self._num_valid, self._invalid_B, self._factors_UB = num_valid, invalid_B, factors_UB
        self._num_drawn = 0
        self._substitutes: dict[Callable[..., Any], Callable[..., Tensor]] = {
            functional.dropout: self._dropout,
            torch.dropout: self._dropout,
            functional.dropout1d: self._spatial_dropout,
            functional.dropout2d: self._spatial_dropout,
            functional.dropout3d: self._spatial_dropout,
            torch.feature_dropout: self._spatial_dropout,
            functional.batch_norm: self._batch_norm,
            functional.embedding_bag: _embedding_bag,
            torch.lstm: self._lstm,
            functional.max_pool2d: _max_pool,
            torch.max_pool2d: _max_pool,
            Tensor.view: _view,
        }

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ours instead of torch's, where there is one."""
        chosen: Callable[..., Any] = self._substitutes.get(func, func)
        return chosen(*args, **(kwargs or {}))

    def _dropout(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        return self._dropped(input, input.shape, p, training)

    def _spatial_dropout(
        self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Tensor:
        return self._dropped(input, input.shape[:2], p, training)

    def _dropped(
        self, x: Tensor, drawn: Sequence[int], probability: float, training: bool
    ) -> Tensor:
        """Inverted dropout (Srivastava et al., 2014), with one draw for each place of `drawn`."""
        if not training or probability == 0:
            return x
        num_rows = drawn[0] if self._invalid_B is None else self._invalid_B.shape[0]
        # A row's share, where the rows are another dimension, or part of one.
        num_draws = math.ceil(math.prod(drawn) / num_rows)
        number = len(self.sites)
        self.sites.append(DropoutSite(probability, num_draws))
        if self._factors_UB is None:
            return x
        start, self._num_drawn = self._num_drawn, self._num_drawn + num_draws
        if self._found is not None:
            before = [site.num_draws for site in self._found[: number + 1]]
            start, num_draws = sum(before[:number]), (before[number:] or [0])[0]
        elif self._factors_UB.shape[1] != drawn[0]:
            raise Unbatchable(
                f"dropout of a tensor of shape {list(x.shape)}, whose first dimension is not the "
                "rows of the batch"
            )
        factors_BU = self._factors_UB[start : start + num_draws].t()
        if self._found is not None and factors_BU.numel() != math.prod(drawn):
            factors_BU = _repeated(factors_BU if num_draws else self._factors_UB, math.prod(drawn))
        return x * factors_BU.reshape(*drawn, *(1,) * (x.dim() - len(drawn)))

    def _lstm(self, input: Tensor, *others: Any) -> Any:
        if isinstance(others[0], Tensor):  # rows of many lengths, whose number at a step varies
            return torch.lstm(input, *others)
        return lstm(lambda x, p: self._dropped(x, x.shape, p, True), input, *others)

    def _batch_norm(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if running_mean is None or running_var is None:
            raise ValueError(
                "batch norm without running statistics cannot be used, since in evaluation an "
                "output would depend on the other rows: leave track_running_stats at True"
            )
        if momentum is None:
            raise ValueError(MOMENTUM_NEEDED)
        weight = torch.ones_like(running_mean) if weight is None else weight
        bias = torch.zeros_like(running_mean) if bias is None else bias
        channels = (-1, *(1,) * (input.dim() - 2))
        if not training:
            scale_C = weight * torch.rsqrt(running_var + eps)
            shift_C = bias - running_mean * scale_C
            return input * scale_C.view(channels) + shift_C.view(channels)
        if input.shape[0] != _num_rows(self._invalid_B, input):
            raise Unbatchable(
                f"batch norm of a tensor of shape {list(input.shape)}, whose first dimension is "
                "not the rows of the batch"
            )
        count = self._num_valid * math.prod(input.shape[2:])
        result: tuple[Tensor, ...] = _BatchNorm.apply(  # type: ignore[no-untyped-call]
            input, weight, bias, self._invalid_B, count, eps
        )
        y, mean_C, squares_C = result[:3]
        unbiased_C = squares_C / (count - 1).clamp(min=1)
        for running_C, now_C in ((running_mean, mean_C), (running_var, unbiased_C)):
            tracked_C = running_C.lerp(now_C, momentum)
            running_C.copy_(torch.where(count > 1, tracked_C, running_C))
        return y


def _repeated(factors: Tensor, count: int) -> Tensor:
    """So many of the factors, the same ones again where there are fewer."""
    factors = factors.reshape(-1)
    return factors.repeat(math.ceil(count / len(factors)))[:count]


def _max_pool(
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    kernel = _pair(kernel_size)
    others = _pair(stride or kernel), _pair(padding), _pair(dilation)
    is_plain = others == (kernel, (0, 0), (1, 1)) and not ceil_mode and not return_indices
    fits = input.dim() == 4 and all(s >= k for s, k in zip(input.shape[2:], kernel, strict=True))
    if not is_plain or not fits or math.prod(kernel) > _MAX_WINDOW:
        given = kernel_size, stride, padding, dilation, ceil_mode, return_indices
        pool: Callable[..., Any] = functional.max_pool2d
        return pool(input, *given)
    height, width = (size - size % k for size, k in zip(input.shape[2:], kernel, strict=True))
    return _MaxPool.apply(input[:, :, :height, :width], *kernel)  # type: ignore[no-untyped-call]


def _pair(size: Any) -> tuple[int, int]:
    """Of rows and columns, as torch takes them: one number for both, or a sequence."""
    height, width = (size, size) if isinstance(size, int) else (*size, *size)[:2]
    return height, width


class _MaxPool(torch.autograd.Function):
    """Max pooling whose windows lie side by side, to the bit as torch has it.

    The gradient goes to the first of the largest numbers of a window, by comparing them again:
    what is compiled of torch's own, by way of indices, branches at every number and takes 3 to 10
    times as long.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, height: int, width: int) -> Tensor:
        """The largest numbers of windows of so many rows and columns."""
        first, *others = _windows(x, height, width)
        for other in others:
            first = torch.maximum(first, other)
        return first

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the gradient needs."""
        x, height, width = inputs
        ctx.save_for_backward(x, output)
        ctx.kernel = height, width  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """To the first of the largest."""
        x, y = ctx.saved_tensors
        height, width = ctx.kernel
        # In the order in which the images lie in memory, or they would be copied.
        is_last = x.stride(1) == 1
        order, back = ((0, 2, 3, 1), (0, 3, 1, 2)) if is_last else ((0, 1, 2, 3),) * 2
        rows = 1 if is_last else 2
        zero = gradient.new_zeros(())
        parts: list[Tensor] = []
        taken: Tensor | None = None
        for part in _windows(x, height, width):
            is_largest = part == y
            is_first = is_largest if taken is None else is_largest & ~taken
            taken = is_largest if taken is None else taken | is_largest
            parts.append(torch.where(is_first, gradient, zero).permute(order))
        lines = [
            torch.stack(parts[i : i + width], dim=rows + 2) for i in range(0, len(parts), width)
        ]
        shape = [x.shape[i] for i in order]
        return torch.stack(lines, dim=rows + 1).reshape(shape).permute(back), None, None


def _windows(x: Tensor, height: int, width: int) -> list[Tensor]:
    """The first number of each window, the second, and so on, row by row."""
    return [x[:, :, i::height, j::width] for i in range(height) for j in range(width)]


def _view(x: Tensor, *shape: Any, **kwargs: Any) -> Tensor:
    """A view, or where the order of the numbers in memory allows none, a copy."""
    if x.is_contiguous() or kwargs or isinstance(shape[0], torch.dtype):
        return x.view(*shape, **kwargs)
    return x.reshape(*shape)


def _num_rows(invalid_B: Tensor | None, x: Tensor) -> int:
    return x.shape[0] if invalid_B is None else invalid_B.shape[0]


class _BatchNorm(torch.autograd.Function):
    """Batch norm over the rows that count, with its gradient written out.

    Ioffe and Szegedy, "Batch normalization" (2015), as torch has it.  A channel of which a single
    number counts has no variance (torch raises): its normalised value is 0.  Half as many passes
    over the activations as autograd makes of the same formulas.

    # x, y, normalised: [B, C, …]; n numbers of each channel count
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        weight_C: Tensor,
        bias_C: Tensor,
        invalid_B: Tensor | None,
        count: Tensor,
        epsilon: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """y, the channels' means, sums of squared deviations, and what the gradient needs."""
        dims, channels = _around_channels(x)
        mean_C = _masked(x, invalid_B).sum(dims) / count
        centred = _masked(x - mean_C.view(channels), invalid_B)
        squares_C = centred.square().sum(dims)
        inverse_std_C = (squares_C / count + epsilon).rsqrt()
        normalised = centred * inverse_std_C.view(channels)
        y = torch.addcmul(bias_C.view(channels), normalised, weight_C.view(channels))
        return y, mean_C, squares_C, normalised, inverse_std_C

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        """Keep what the gradient needs."""
        _, weight_C, _, invalid_B, count, _ = inputs
        _, mean_C, squares_C, normalised, inverse_std_C = output
        ctx.mark_non_differentiable(mean_C, squares_C, normalised, inverse_std_C)
        ctx.save_for_backward(weight_C, invalid_B, count, normalised, inverse_std_C)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Through the statistics: g - mean(g) - x̂·mean(g·x̂), times scale/σ."""
        weight_C, invalid_B, count, normalised, inverse_std_C = ctx.saved_tensors
        dims, channels = _around_channels(normalised)
        bias_grad_C = gradient.sum(dims)
        weight_grad_C = (gradient * normalised).sum(dims)
        centred = gradient - (bias_grad_C / count).view(channels)
        centred = centred - normalised * (weight_grad_C / count).view(channels)
        x_grad = _masked(centred * (inverse_std_C * weight_C).view(channels), invalid_B)
        return x_grad, weight_grad_C, bias_grad_C, None, None, None


def _around_channels(x: Tensor) -> tuple[list[int], tuple[int, ...]]:
    return [0, *range(2, x.dim())], (-1, *(1,) * (x.dim() - 2))


def _masked(x: Tensor, invalid_B: Tensor | None) -> Tensor:
    """Zeros in the rows that do not count: by selection, since a product with 0 keeps a NaN."""
    if invalid_B is None:
        return x
    # Not `masked_fill`, which lays images out anew where their channels lie last.
    return torch.where(invalid_B.view(-1, *(1,) * (x.dim() - 1)), x.new_zeros(()), x)


def _embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The bags of rows of tokens [B, T]; tokens of `padding_idx` do not count."""
    if offsets is not None or input.dim() != 2:
        raise Unbatchable(
            "an embedding bag with offsets; give it rows of tokens of one length, with padding_idx"
        )
    if max_norm is not None or scale_grad_by_freq:
        raise Unbatchable("an embedding bag with max_norm or scale_grad_by_freq")
    flow_BTD = functional.embedding(input, weight, padding_idx)
    if per_sample_weights is not None:
        flow_BTD = flow_BTD * per_sample_weights[:, :, None]
    if padding_idx is None:
        if mode == "max":
            return flow_BTD.max(dim=1).values
        return flow_BTD.sum(dim=1) if mode == "sum" else flow_BTD.mean(dim=1)
    padding_idx %= weight.shape[0]
    counts_BT = input != padding_idx
    some_B1 = counts_BT.any(dim=1, keepdim=True)
    if mode == "max":
        flow_BTD = flow_BTD.masked_fill(~counts_BT[:, :, None], -math.inf)
        return flow_BTD.max(dim=1).values.masked_fill(~some_B1, 0)
    total_BD = flow_BTD.masked_fill(~counts_BT[:, :, None], 0).sum(dim=1)
    if mode == "sum":
        return total_BD
    return total_BD / counts_BT.sum(dim=1, keepdim=True).clamp(min=1)
