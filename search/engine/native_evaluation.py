"""Native evaluation of a few slots on a split, of the models that have native steps.

The structs are those of `kernels.cpp`.

# E slots at once, B rows of a chunk, D units in, H units out
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Mapping, Sequence
from ctypes import POINTER, Structure, byref, c_int64, c_void_p

from torch import Tensor

from ridgeline.search.engine.config import ModelShape
from ridgeline.search.engine.native import Kernels, forget_handles, handles_of, torch_library
from ridgeline.search.engine.native_steps import has_native_steps


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


class _Evaluation(Structure):
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


class NativeEvaluation:
    """The evaluation of a few slots on a split, by the shapes that have native steps.

    Args:
        chunks: of `EvaluationMemory.inputs`; fills their totals and weights.
    """

    _bound: dict[int, list[_Evaluation]]
    """A call for each chunk, by the number of slots that they are of."""

    def __init__(
        self, kernels: Kernels, shape: ModelShape, chunks: Sequence[Mapping[str, Tensor]]
    ) -> None:
        assert has_native_steps(shape)
        self._shape, self._chunks = shape, chunks
        x_BD, totals_E2 = chunks[0]["x"], chunks[0]["totals"]
        # The same for all chunks, which have as many rows.
        self._outputs_EHB = [
            x_BD.new_empty(len(totals_E2), num_out, len(x_BD)) for num_out in shape.widths[1:]
        ]
        self._evaluate = kernels.by_name[f"evaluate_{str(x_BD.dtype).removeprefix('torch.')}"]
        self._bound = {}

    @classmethod
    def bind(
        cls, kernels: Kernels, shape: ModelShape, chunks: Sequence[Mapping[str, Tensor]]
    ) -> Callable[[int], None]:
        """As `BindEvaluation` has it."""
        return cls(kernels, shape, chunks).run

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

    def _call(self, chunk: Mapping[str, Tensor], num_slots: int, *, is_first: bool) -> _Evaluation:
        widths, layers = self._shape.widths, []
        flow = chunk["x"].t()[None].expand(num_slots, -1, -1)
        for i, output_EHB in enumerate(self._outputs_EHB):
            weight, bias = chunk[f"layers.{i}.weight"], chunk[f"layers.{i}.bias"]
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
        return _Evaluation(
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
