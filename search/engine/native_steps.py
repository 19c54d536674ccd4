"""Native steps of a pack on a CPU: whole ones of perceptrons, or the update and dropout of others.

The structs are those of `kernels.cpp`.

# K slots, B rows of a batch, D units in, H units out, R numbers of a region
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Mapping, Sequence
from ctypes import POINTER, Structure, byref, c_int64, c_void_p, pointer
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ridgeline.search.engine.config import ModelShape
from ridgeline.search.engine.native import Kernels, forget_handles, handles_of, torch_library
from ridgeline.search.engine.spec import StepSpec

if TYPE_CHECKING:
    from ridgeline.search.engine.step import Region


class _Region(Structure):
    _fields_ = (
        ("parameters", c_void_p),
        ("gradients", c_void_p),
        ("first", c_void_p),
        ("second", c_void_p),
        ("size", c_int64),
        ("is_others", c_int64),
    )


class _Update(Structure):
    _fields_ = (
        ("regions", POINTER(_Region)),
        ("num_regions", c_int64),
        ("num_slots", c_int64),
        ("num_steps", c_int64),
        ("rates", c_void_p),
        ("constants", c_void_p),
        ("step", c_void_p),
        ("occupied", c_void_p),
        ("clips", c_int64),
    )


class _Dropout(Structure):
    _fields_ = (
        ("num_slots", c_int64),
        ("num_units", c_int64),
        ("num_rows", c_int64),
        ("num_steps", c_int64),
        ("keys", c_void_p),
        ("thresholds", c_void_p),
        ("counters", c_void_p),
        ("constants", c_void_p),
        ("step", c_void_p),
        ("factors", c_void_p),
    )


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


class _Mlp(Structure):
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
        ("dropout", POINTER(_Dropout)),
        ("update", POINTER(_Update)),
        ("bmm", c_void_p),
    )  # fmt: skip


class NativeStep:
    """The kernels over the tensors of one pack, whose addresses must not change.

    Args:
        inputs: of `PackMemory.inputs`.
        regions: all parameters, their gradients and moments, in stretches [K, R].
    """

    def __init__(
        self,
        kernels: Kernels,
        spec: StepSpec,
        inputs: Mapping[str, Tensor],
        regions: Sequence[Region],
    ) -> None:
        step_K, keys_KS = inputs["step"], inputs["dropout_keys"]
        num_slots, num_steps = inputs["samples"].shape[:2]
        num_units, num_rows = inputs["dropout_counters"].shape
        constants = inputs["constants"]
        self._factors_KUB = constants.new_zeros(num_slots, num_units, num_rows)
        self._regions = (_Region * len(regions))(*map(_region, regions))
        self._update_arguments = _Update(
            self._regions,
            len(regions),
            num_slots,
            num_steps,
            inputs["rates"].data_ptr(),
            constants.data_ptr(),
            step_K.data_ptr(),
            inputs["occupied"].data_ptr(),
            spec.clips,
        )
        self._dropout_arguments = _Dropout(
            num_slots,
            num_units,
            num_rows,
            num_steps,
            keys_KS.data_ptr(),
            inputs["dropout_thresholds"].data_ptr(),
            inputs["dropout_counters"].data_ptr(),
            constants.data_ptr(),
            step_K.data_ptr(),
            self._factors_KUB.data_ptr(),
        )
        self._update = kernels.by_name[f"{spec.family}_{spec.dtype}"]
        self._dropout = kernels.by_name[f"dropout_{spec.dtype}"]

    @property
    def arguments(self) -> tuple[_Update, _Dropout]:
        """What the kernels of the update and of dropout take."""
        return self._update_arguments, self._dropout_arguments

    @property
    def dropout_factors_address(self) -> int:
        """Where `dropout_factors` lie."""
        return self._factors_KUB.data_ptr()

    def dropout_factors(self) -> Tensor:
        """What to multiply each hidden unit with, [K, U, B]; overwritten by the next call."""
        self._dropout(byref(self._dropout_arguments))
        return self._factors_KUB

    def update(self) -> None:
        """Penalties, clipping and the optimizer's update of the occupied slots; counts the step."""
        self._update(byref(self._update_arguments))


def has_native_steps(shape: ModelShape) -> bool:
    """Whether `NativeMlp` trains models of this shape."""
    return shape.activation == "relu" and not shape.batch_norm


class NativeMlp:
    """Whole steps of a pack of perceptrons with relu: only the products are torch's.

    A step of a small model costs its products, and two packs train at once: the interpreter is not
    asked between operations.

    Args:
        kernels, spec, inputs, regions: as of a `NativeStep`.
        gradients: by the names of the parameters; filled in each step.
    """

    _layers: dict[int, ctypes.Array[_Layer]]
    """By the number of slots that they are of."""

    def __init__(
        self,
        kernels: Kernels,
        spec: StepSpec,
        inputs: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        regions: Sequence[Region],
    ) -> None:
        assert has_native_steps(spec.shape)
        self._parts = NativeStep(kernels, spec, inputs, regions)
        x_ND = inputs["x"]
        num_slots, _, num_rows = inputs["samples"].shape
        batch_KBD = x_ND.new_zeros(num_slots, num_rows, x_ND.shape[1])
        self._batch_KBD = batch_KBD  # kept for as long as the kernels write there, like those below
        widths, num_layers = spec.shape.widths, len(spec.shape.widths) - 1
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
        self._arguments = _Mlp(
            None,
            num_layers,
            num_rows,
            sum(spec.shape.hidden),
            x_ND.data_ptr(),
            inputs["y"].data_ptr(),
            inputs["samples"].data_ptr(),
            inputs["invalid"].data_ptr(),
            inputs["num_valid"].data_ptr(),
            batch_KBD.data_ptr(),
            inputs["loss_sums"].data_ptr(),
            inputs["num_right"].data_ptr(),
            pointer(dropout) if spec.drops else None,
            pointer(update),
            ctypes.cast(torch_library().aoti_torch_cpu_bmm_out, c_void_p),
        )
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


def _region(region: Region) -> _Region:
    first, *second = region.moments
    tensors = [region.parameters, region.gradients, first, *second]
    assert all(tensor.is_contiguous() for tensor in tensors)
    pointers = [tensor.data_ptr() for tensor in tensors]
    if not second:
        pointers.append(0)
    return _Region(*pointers, region.parameters.shape[1], not region.is_matrices)
