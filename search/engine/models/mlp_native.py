"""Whole native steps and evaluations of perceptrons with relu and cross-entropy, on a CPU.

Only the products are torch's.  A step of a small model costs its products, and two packs train at
once: the interpreter is not asked between operations.  The structs are those of `kernels.cpp`.

# K slots, E slots evaluated at once, B rows of a batch or chunk, D units in, H units out
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from ctypes import POINTER, Structure, byref, c_int64, c_void_p, pointer
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ridgeline.search.engine.models.base import NativeProgram
from ridgeline.search.engine.models.mlp import Mlp
from ridgeline.search.engine.native import Kernels, forget_handles, handles_of, torch_library
from ridgeline.search.engine.native_steps import (
    DropoutArguments,
    NativeStep,
    UpdateArguments,
    address_of,
)
from ridgeline.search.engine.products import counts_show, random_stack
from ridgeline.search.engine.spec import StepSpec

if TYPE_CHECKING:
    from ridgeline.search.engine.step import Region


class NativeMlp(NativeProgram):
    """The native program of one model."""

    def __init__(self, model: Mlp) -> None:
        self._model = model

    def bind_steps(
        self,
        kernels: Kernels,
        spec: StepSpec,
        inputs: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        regions: Sequence[Region],
    ) -> Callable[[int, int], None]:
        return MlpSteps(self._model, kernels, spec, inputs, gradients, regions).run

    def bind_evaluation(
        self, kernels: Kernels, chunks: Sequence[Mapping[str, Tensor]]
    ) -> Callable[[int], None]:
        return MlpEvaluation(kernels, self._model, chunks).run

    def counts_show(
        self,
        spec: StepSpec,
        width: int,
        num_evaluated_rows: int,
        num_evaluated: int,
        *,
        with_onednn: bool | None,
    ) -> bool:
        kind = getattr(torch, spec.dtype), with_onednn
        return counts_show_in_steps(
            self._model, spec.num_rows(width), width, *kind
        ) or counts_show_in_evaluation(self._model, num_evaluated_rows, num_evaluated, *kind)


class _Layer(Structure):
    _fields_ = (
        ("num_in", c_int64),
        ("num_out", c_int64),
        ("bias_stride", c_int64),
        *(
            (name, c_void_p)
            for name in (
                "bias", "bias_gradient", "activation", "flow", "gradient", "factors", "weight",
                "weight_transposed", "weight_gradient", "input", "input_transposed", "output",
                "output_gradient", "input_gradient",
            )
        ),
    )  # fmt: skip


class _MlpArguments(Structure):
    _fields_ = (
        ("layers", POINTER(_Layer)),
        ("num_layers", c_int64),
        ("num_rows", c_int64),
        ("num_units", c_int64),
        *(
            (name, c_void_p)
            for name in (
                "x", "y", "samples", "invalid", "num_valid", "batch", "loss_sums", "num_right",
            )
        ),
        ("dropout", POINTER(DropoutArguments)),
        ("update", POINTER(UpdateArguments)),
        ("bmm", c_void_p),
        *(
            (name, c_void_p)
            for name in (
                "input_keys", "input_thresholds", "input_counters", "input_scales", "smoothing",
            )
        ),
    )  # fmt: skip


class MlpSteps:
    """Steps of one pack; the arguments are those of `NativeProgram.bind_steps`."""

    _layers: dict[int, ctypes.Array[_Layer]]
    """By the number of slots that they are of."""

    def __init__(
        self,
        model: Mlp,
        kernels: Kernels,
        spec: StepSpec,
        inputs: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        regions: Sequence[Region],
    ) -> None:
        self._parts = NativeStep(kernels, spec, inputs, regions)
        x_ND = inputs["x"]
        num_slots, _, num_rows = inputs["samples"].shape
        batch_KBD = x_ND.new_zeros(num_slots, num_rows, x_ND.shape[1])
        self._batch_KBD = batch_KBD  # kept for as long as the kernels write there, like those below
        widths, num_layers = model.widths, len(model.widths) - 1
        self._numbers: list[tuple[int, ...]] = []
        self._operands: list[list[Tensor]] = []
        self._layers = {}
        flow_KDB, flow_gradient_KDB = batch_KBD.transpose(1, 2), None
        factors_at = self._parts.dropout_factors_address if spec.drops else 0
        for i in range(num_layers):
            weight, bias = inputs[f"parameters.layers.{i}.weight"], f"layers.{i}.bias"
            output_KHB, gradient_KHB = (
                x_ND.new_zeros(num_slots, widths[i + 1], num_rows) for _ in range(2)
            )
            is_dropped = spec.drops and i < num_layers - 1
            next_KHB = torch.zeros_like(output_KHB) if is_dropped else output_KHB
            operands = [
                weight,
                weight.transpose(1, 2),
                gradients[f"layers.{i}.weight"],
                flow_KDB,
                flow_KDB.transpose(1, 2),
                output_KHB,
                gradient_KHB,
                *([] if flow_gradient_KDB is None else [flow_gradient_KDB]),
            ]
            self._operands.append(operands)
            self._numbers.append(
                (
                    widths[i],
                    widths[i + 1],
                    inputs[f"parameters.{bias}"].stride(0),
                    inputs[f"parameters.{bias}"].data_ptr(),
                    gradients[bias].data_ptr(),
                    output_KHB.data_ptr(),
                    next_KHB.data_ptr(),
                    gradient_KHB.data_ptr(),
                    factors_at if is_dropped else 0,
                )
            )
            factors_at += widths[i + 1] * num_rows * x_ND.element_size()
            flow_KDB, flow_gradient_KDB = next_KHB, gradient_KHB
        update, dropout = self._parts.arguments
        self._arguments = _MlpArguments(
            None,
            num_layers,
            num_rows,
            model.num_draws,
            x_ND.data_ptr(),
            inputs["y"].data_ptr(),
            inputs["samples"].data_ptr(),
            inputs["invalid"].data_ptr(),
            inputs["num_valid"].data_ptr(),
            batch_KBD.data_ptr(),
            inputs["loss_sums"].data_ptr(),
            inputs["score_sums"].data_ptr(),
            pointer(dropout) if spec.drops else None,
            pointer(update),
            ctypes.cast(torch_library().aoti_torch_cpu_bmm_out, c_void_p),
            *(
                address_of(inputs, name)
                for name in (
                    "input_keys", "input_thresholds", "input_counters", "input_scales", "smoothing",
                )
            ),
        )  # fmt: skip
        self._train = kernels.by_name[f"train_{spec.dtype}"]
        self._is_adam = c_int64(spec.family == "adam")

    def run(self, num_slots: int, count: int) -> None:
        """Take so many steps of the first slots.

        Raises:
            MemoryError: a product failed: nothing else can run out.
        """
        if num_slots not in self._layers:
            self._layers[num_slots] = self._bind(num_slots)
        self._arguments.layers = self._layers[num_slots]
        for arguments in self._parts.arguments:
            arguments.num_slots = num_slots
        if self._train(byref(self._arguments), self._is_adam, c_int64(count)):
            raise MemoryError("a product could not allocate what it needs; see the log")

    def _bind(self, num_slots: int) -> ctypes.Array[_Layer]:
        layers = []
        for numbers, operands in zip(self._numbers, self._operands, strict=True):
            handles = [*handles_of([tensor[:num_slots] for tensor in operands])]
            weakref.finalize(self, forget_handles, handles)
            layers.append(_Layer(*numbers, *handles))  # the first has no gradient of its input
        return (_Layer * len(layers))(*layers)


class _EvaluatedLayer(Structure):
    _fields_ = (
        ("num_in", c_int64),
        ("num_out", c_int64),
        ("weight_stride", c_int64),
        ("bias_stride", c_int64),
        ("weight_numbers", c_void_p),
        ("bias", c_void_p),
        ("output_numbers", c_void_p),
        ("weight", c_void_p),
        ("input", c_void_p),
        ("output", c_void_p),
    )


class _EvaluationArguments(Structure):
    _fields_ = (
        ("layers", POINTER(_EvaluatedLayer)),
        ("num_layers", c_int64),
        ("num_slots", c_int64),
        ("num_rows", c_int64),
        ("num_valid", c_int64),
        ("y", c_void_p),
        ("totals", c_void_p),
        ("weights", c_void_p),
        ("bmm", c_void_p),
    )


class MlpEvaluation:
    """An evaluation; fills the totals and weights of the chunks of an `EvaluationMemory`."""

    _bound: dict[int, list[_EvaluationArguments]]
    """A call for each chunk, by the number of slots that they are of."""

    def __init__(
        self, kernels: Kernels, model: Mlp, chunks: Sequence[Mapping[str, Tensor]]
    ) -> None:
        self._model, self._chunks = model, chunks
        x_BD, totals_E2 = chunks[0]["x"], chunks[0]["totals"]
        # The same for all chunks, which have as many rows.
        self._outputs_EHB = [
            x_BD.new_empty(len(totals_E2), num_out, len(x_BD)) for num_out in model.widths[1:]
        ]
        self._evaluate = kernels.by_name[f"evaluate_{str(x_BD.dtype).removeprefix('torch.')}"]
        self._bound = {}

    def run(self, num_slots: int) -> None:
        """Evaluate the first slots, chunk by chunk.

        Raises:
            MemoryError: a product failed: nothing else can run out.
        """
        if num_slots not in self._bound:
            self._bound[num_slots] = [
                self._call(chunk, num_slots, is_first=i == 0)
                for i, chunk in enumerate(self._chunks)
            ]
        for arguments in self._bound[num_slots]:
            if self._evaluate(byref(arguments)):
                raise MemoryError("a product could not allocate what it needs; see the log")

    def _call(
        self, chunk: Mapping[str, Tensor], num_slots: int, *, is_first: bool
    ) -> _EvaluationArguments:
        widths, layers = self._model.widths, []
        flow = chunk["x"].t()[None].expand(num_slots, -1, -1)
        for i, output_EHB in enumerate(self._outputs_EHB):
            weight, bias = (chunk[f"parameters.layers.{i}.{name}"] for name in ("weight", "bias"))
            output = output_EHB[:num_slots]
            handles = [*handles_of([weight[:num_slots], flow, output])]
            weakref.finalize(self, forget_handles, handles)
            layers.append(
                _EvaluatedLayer(
                    widths[i],
                    widths[i + 1],
                    weight.stride(0),
                    bias.stride(0),
                    weight.data_ptr(),
                    bias.data_ptr(),
                    output.data_ptr(),
                    *handles,
                )
            )
            flow = output
        return _EvaluationArguments(
            (_EvaluatedLayer * len(layers))(*layers),
            len(layers),
            num_slots,
            len(chunk["x"]),
            int(chunk["num_valid"]),
            chunk["y"].data_ptr(),
            chunk["totals"].data_ptr(),
            chunk["weights"].data_ptr() if is_first else 0,
            ctypes.cast(torch_library().aoti_torch_cpu_bmm_out, c_void_p),
        )


@cache
def counts_show_in_steps(
    model: Mlp, num_rows: int, num_slots: int, dtype: torch.dtype, with_onednn: bool | None
) -> bool:
    """Whether bits of a slot's step depend on how many of `num_slots` are computed at once.

    Tried on random numbers laid out as those of a step.  The library that multiplies is named for
    the answer to be remembered with.
    """
    products = _step_products(model, num_rows, num_slots, dtype)
    return any(counts_show(left, right) for left, right in products)


@cache
def counts_show_in_evaluation(
    model: Mlp, num_rows: int, num_slots: int, dtype: torch.dtype, with_onednn: bool | None
) -> bool:
    """As `counts_show_in_steps`, of an evaluation of the same rows by every slot."""
    products = _evaluation_products(model, num_rows, num_slots, dtype)
    return any(counts_show(left, right) for left, right in products)


def _step_products(
    model: Mlp, num_rows: int, num_slots: int, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    for i, (num_in, num_out) in enumerate(pairwise(model.widths)):
        weight_KHD = random_stack(num_slots, num_out, num_in, dtype)
        gradient_KHB = random_stack(num_slots, num_out, num_rows, dtype)
        # The first layer's input lies row by row, those of the others unit by unit.
        if i == 0:
            flow_KDB = random_stack(num_slots, num_rows, num_in, dtype).transpose(1, 2)
        else:
            flow_KDB = random_stack(num_slots, num_in, num_rows, dtype)
            yield weight_KHD.transpose(1, 2), gradient_KHB
        yield weight_KHD, flow_KDB
        yield gradient_KHB, flow_KDB.transpose(1, 2)


def _evaluation_products(
    model: Mlp, num_rows: int, num_slots: int, dtype: torch.dtype
) -> Iterator[tuple[Tensor, Tensor]]:
    for i, (num_in, num_out) in enumerate(pairwise(model.widths)):
        if i == 0:
            rows_1BD = random_stack(1, num_rows, num_in, dtype)
            flow_KDB = rows_1BD.transpose(1, 2).expand(num_slots, -1, -1)
        else:
            flow_KDB = random_stack(num_slots, num_in, num_rows, dtype)
        yield random_stack(num_slots, num_out, num_in, dtype), flow_KDB
