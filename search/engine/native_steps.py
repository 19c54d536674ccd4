"""The native part of a pack's steps on a CPU, whatever the model: batch, update and dropout.

The update has noise and bounds on norms in it for the slots that use them.

The structs are those of `kernels.cpp`.

# K slots, B rows of a batch, U dropout draws of a row, R numbers of a region
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from ctypes import POINTER, Structure, byref, c_int64, c_void_p
from typing import TYPE_CHECKING

from torch import Tensor

from ridgeline.search.engine.batch import Batch
from ridgeline.search.engine.native import BoundUpdate, Kernels
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
        ("num_units", c_int64),
        ("num_incoming", c_int64),
        ("noise_counters", c_void_p),
    )


class UpdateArguments(Structure):
    """What the kernels of an update take."""

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
        ("noise_keys", c_void_p),
        ("noise_scales", c_void_p),
        ("normal", c_void_p),
        ("max_norms", c_void_p),
    )


class DropoutArguments(Structure):
    """What the kernel of dropout takes."""

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


class BatchArguments(Structure):
    """What the kernel that fetches a batch takes."""

    _fields_ = (
        *((name, c_int64) for name in ("num_slots", "num_steps", "num_rows")),
        *((name, c_int64) for name in ("x_bytes", "y_bytes", "number_bytes")),
        *((name, c_void_p) for name in ("step", "samples")),
        *((name, c_void_p) for name in ("x", "y", "invalid", "num_valid")),
        *((name, c_void_p) for name in ("its_x", "its_y", "its_invalid", "its_num_valid")),
    )


def batch_arguments(inputs: Mapping[str, Tensor], batch: Batch) -> BatchArguments:
    """Fetch the batch of every slot's next step into `batch`.

    Args:
        inputs: of `PackMemory.inputs`; their addresses must not change, like those of the batch.
    """
    assert batch.invalid_KB is not None
    tables = [inputs[name] for name in ("x", "y", "invalid", "num_valid")]
    fetched = [batch.x_KB, batch.y_KB, batch.invalid_KB, batch.num_valid_K]
    assert all(tensor.is_contiguous() for tensor in (*tables, *fetched, inputs["samples"]))
    return BatchArguments(
        *inputs["samples"].shape,
        batch.x_KB[0, 0].nbytes,
        batch.y_KB[0, 0].nbytes,
        batch.num_valid_K.itemsize,
        inputs["step"].data_ptr(),
        inputs["samples"].data_ptr(),
        *(tensor.data_ptr() for tensor in (*tables, *fetched)),
    )


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
        counters_at = address_of(inputs, "noise_counters")
        its_regions = []
        for region in regions:
            its_regions.append(_region(region, counters_at))
            counters_at += 8 * region.parameters.shape[1] if counters_at else 0
        self._regions = (_Region * len(regions))(*its_regions)
        self._update_arguments = UpdateArguments(
            self._regions,
            len(regions),
            num_slots,
            num_steps,
            inputs["rates"].data_ptr(),
            constants.data_ptr(),
            step_K.data_ptr(),
            inputs["occupied"].data_ptr(),
            spec.clips,
            *(
                address_of(inputs, name)
                for name in ("noise_keys", "noise_scales", "normal", "max_norms")
            ),
        )
        self._dropout_arguments = DropoutArguments(
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
    def arguments(self) -> tuple[UpdateArguments, DropoutArguments]:
        """What the kernels of the update and of dropout take."""
        return self._update_arguments, self._dropout_arguments

    @property
    def bound_update(self) -> BoundUpdate:
        """The update, for native code to call."""
        regions = self._regions
        first, size = ctypes.addressof(regions), ctypes.sizeof(_Region)
        fields = [first + i * size + _Region.gradients.offset for i in range(len(regions))]
        return BoundUpdate(self._update, self._update_arguments, fields)

    @property
    def dropout_factors_address(self) -> int:
        """Where `dropout_factors` lie."""
        return self._factors_KUB.data_ptr()

    def dropout_factors(self) -> Tensor:
        """What to multiply each unit with, [K, U, B]; overwritten by the next call."""
        self._dropout(byref(self._dropout_arguments))
        return self._factors_KUB

    def update(self) -> None:
        """See `step.Step`."""
        self._update(byref(self._update_arguments))


def address_of(inputs: Mapping[str, Tensor], name: str) -> int:
    """Where a tensor of `RegulariserMemory.inputs` lies; 0 where there is none."""
    tensor = inputs.get(f"regularisers.{name}")
    return 0 if tensor is None else tensor.data_ptr()


def _region(region: Region, counters_at: int) -> _Region:
    first, *second = region.moments
    tensors = [region.parameters, region.gradients, first, *second]
    assert all(tensor.is_contiguous() for tensor in tensors)
    pointers = [tensor.data_ptr() for tensor in tensors]
    if not second:
        pointers.append(0)
    return _Region(
        *pointers,
        region.parameters.shape[1],
        not region.is_penalised,
        region.num_units,
        region.num_incoming,
        counters_at,
    )
