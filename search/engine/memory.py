"""Every tensor of a pack: allocated once, written in place, the same for all its programs.

Whatever differs between slots or changes with time stands in one of these, so a program needs no
number from the host, and a run is loaded into a slot by writing a row.

# K slots, P parameters a slot, Q statistics a slot, S steps of an epoch, B rows of a batch (padded)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import IntEnum

import torch
from torch import Tensor

from ridgeline.search.engine import rng
from ridgeline.search.engine.augment_memory import AugmentationMemory, augmentation_bytes
from ridgeline.search.engine.config import Regulariser
from ridgeline.search.engine.data import DeviceData
from ridgeline.search.engine.layout import Stacks, layouts
from ridgeline.search.engine.losses import LOSSES
from ridgeline.search.engine.regulariser_memory import RegulariserMemory, regulariser_bytes
from ridgeline.search.engine.spec import StepSpec

MOMENTS = {"sgd": ("momentum",), "adam": ("first_moment", "second_moment")}
"""The state of each family's update, by name; all zero for a fresh run."""


class Rate(IntEnum):
    """The columns of a slot's coefficients, a row for each step of its epoch.

    SCALE and EPSILON are those of the family's update.  KEEP and THRESHOLD are for the parameters
    that the model penalises; the columns of OTHERS are for all others.
    """

    SCALE = 0
    EPSILON = 1
    KEEP = 2
    KEEP_OTHERS = 3
    THRESHOLD = 4
    THRESHOLD_OTHERS = 5


class Constant(IntEnum):
    """The columns of a slot's coefficients that are the same in every step."""

    L1 = 0
    L1_OTHERS = 1
    L2 = 2
    L2_OTHERS = 3
    MOMENTUM = 4
    NESTEROV = 5
    CLIP_NORM = 6
    DROPOUT_SCALE = 7


class PackMemory:
    """The tensors of K slots over one data set.

    Attributes:
        parameters, statistics, moments: what training changes in a slot for good.
        samples_KSB: the rows of the training part that each step takes, int32.
        rates_KSC, constants_KC: see `Rate` and `Constant`.
        dropout_keys_KS, dropout_thresholds_K1, dropout_counters_UB: see `rng`.
        augmentation: what augments a batch; None where nothing does.
        regularisers: what regularises the slots; None where nothing has to.
        class_weights_KC: those of the classes; None where all weigh alike.
        step_K: the step of its epoch that each slot takes next.
        occupied_K: whether a slot has a run.
        loss_sums_K, score_sums_K: over the samples met in the slot's epoch so far.
        invalid_SB, num_valid_S: which rows of a step only pad its batch; the same for all slots.
    """

    def __init__(self, spec: StepSpec, width: int, data: DeviceData) -> None:
        device, dtype = data.device, data.dtype
        num_steps, num_rows = spec.num_steps, spec.num_rows(width)
        self.data = data
        self.layout, self.statistics_layout = layouts(spec.model)

        def zeros(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.parameters = Stacks(self.layout, width, device=device, dtype=dtype)
        self.statistics = Stacks(self.statistics_layout, width, device=device, dtype=dtype)
        self.moments = {
            name: Stacks(self.layout, width, device=device, dtype=dtype)
            for name in MOMENTS[spec.family]
        }
        self.samples_KSB = zeros(width, num_steps, num_rows, dtype=torch.int32)
        self.rates_KSC = zeros(width, num_steps, len(Rate))
        self.constants_KC = zeros(width, len(Constant))
        self.dropout_keys_KS = zeros(width, num_steps if spec.drops else 0, dtype=torch.int64)
        self.dropout_thresholds_K1 = zeros(width, 1, dtype=torch.int64)
        # Given rather than worked out in the step: inductor cannot print what it makes of it.
        num_units = spec.model.num_draws if spec.drops else 0
        counters_BU = rng.counters(num_rows * num_units, device).view(num_rows, num_units)
        self.dropout_counters_UB = counters_BU.t().contiguous()
        self.augmentation: AugmentationMemory | None = None
        if spec.augments:
            self.augmentation = AugmentationMemory(
                spec.augments, (width, num_steps, num_rows), spec.model.sample_shape, device, dtype
            )
        self._sizes = width, num_steps, num_rows
        self._model = spec.model
        self.regularisers: RegulariserMemory | None = None
        self.add_regularisers(spec.regularises)
        self.class_weights_KC: Tensor | None = None
        if spec.weighs:
            # As of a slot that weighs all alike: a slot without a run has no 0/0.
            self.class_weights_KC = zeros(width, spec.model.num_outputs).fill_(1)
        self.step_K = zeros(width, dtype=torch.int64)
        self.occupied_K = zeros(width, dtype=torch.bool)
        self.loss_sums_K = zeros(width, dtype=torch.float64)
        self.score_sums_K = zeros(width, dtype=LOSSES[spec.loss].score_dtype)

        starts_S = torch.arange(num_steps, device=device) * spec.batch_size
        num_valid_S = (spec.num_samples - starts_S).clamp(max=spec.batch_size)
        rows_B = torch.arange(num_rows, device=device)
        self.invalid_SB = rows_B >= num_valid_S[:, None]
        self.num_valid_S = num_valid_S.to(dtype)
        self.has_padding = bool(self.invalid_SB.any())
        # A padded row repeats the batch's first: nothing comes up in it that does not come up in
        # the batch itself.
        self.positions_SB = starts_S[:, None] + torch.where(self.invalid_SB, 0, rows_B)

    @property
    def state(self) -> dict[str, Stacks]:
        """Everything that training changes for good."""
        return {"parameters": self.parameters, "statistics": self.statistics, **self.moments}

    def add_regularisers(self, kinds: Collection[Regulariser]) -> None:
        """Make the tensors of more kinds; what was made before stays where it is."""
        if not kinds:
            return
        if self.regularisers is None:
            device, dtype = self.data.device, self.data.dtype
            self.regularisers = RegulariserMemory(self._model, self._sizes, device, dtype)
        self.regularisers.add(kinds)

    def copy_slot(self, slot: int, source: PackMemory, its_slot: int) -> None:
        """Write all of a slot of this or another pack of the same step into one of this."""
        for mine, its in zip(self._by_slot(), source._by_slot(), strict=True):
            mine[slot] = its[its_slot]

    def _by_slot(self) -> list[Tensor]:
        """All tensors whose first dimension is the slots."""
        return [
            *(stretch_KR for stacks in self.state.values() for stretch_KR in stacks.stretches_KR),
            self.samples_KSB,
            self.rates_KSC,
            self.constants_KC,
            self.dropout_keys_KS,
            self.dropout_thresholds_K1,
            self.step_K,
            self.occupied_K,
            self.loss_sums_K,
            self.score_sums_K,
            *(() if self.class_weights_KC is None else (self.class_weights_KC,)),
            *(self.augmentation.by_slot() if self.augmentation is not None else ()),
            *(self.regularisers.by_slot() if self.regularisers is not None else ()),
        ]

    def inputs(self) -> dict[str, Tensor]:
        """All that a step reads and writes, with the state parameter by parameter."""
        tensors = {
            "x": self.data.train.x,
            "y": self.data.train.y,
            "samples": self.samples_KSB,
            "rates": self.rates_KSC,
            "constants": self.constants_KC,
            "dropout_keys": self.dropout_keys_KS,
            "dropout_thresholds": self.dropout_thresholds_K1,
            "dropout_counters": self.dropout_counters_UB,
            "step": self.step_K,
            "occupied": self.occupied_K,
            "loss_sums": self.loss_sums_K,
            "score_sums": self.score_sums_K,
            "invalid": self.invalid_SB,
            "num_valid": self.num_valid_S,
        }
        if self.class_weights_KC is not None:
            tensors["class_weights"] = self.class_weights_KC
        if self.augmentation is not None:
            its = self.augmentation.inputs()
            tensors |= {f"augmentation.{name}": tensor for name, tensor in its.items()}
        if self.regularisers is not None:
            its = self.regularisers.inputs()
            tensors |= {f"regularisers.{name}": tensor for name, tensor in its.items()}
        for kind, stacks in self.state.items():
            tensors |= {f"{kind}.{name}": view for name, view in stacks.views().items()}
        return tensors


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin so, by the rest of their names."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def state_sizes(spec: StepSpec) -> dict[str, int]:
    """The length of each row of `PackMemory.state`."""
    layout, statistics_layout = layouts(spec.model)
    moments = dict.fromkeys(MOMENTS[spec.family], layout.row_size)
    sizes = {"parameters": layout.row_size, "statistics": statistics_layout.row_size}
    return {**sizes, **moments}


def bytes_per_slot(spec: StepSpec, width: int) -> int:
    """What one slot more takes of the device, by the shapes above and those of `step`.

    Parameters, gradients, scratch and moments; the batch and its activations forwards and
    backwards; the order of the samples and the coefficients of an epoch; what augmentation and
    regularisers take.
    """
    item = 8 if spec.dtype == "float64" else 4
    num_rows, model = spec.num_rows(width), spec.model
    layout, statistics_layout = layouts(model)
    row = layout.row_size
    state = row * (3 + len(MOMENTS[spec.family])) + 2 * statistics_layout.row_size
    activations = num_rows * model.numbers_per_row
    dropout = num_rows * model.num_draws * (item + 8) + 8 * spec.num_steps if spec.drops else 0
    tables = spec.num_steps * (4 * num_rows + item * len(Rate))
    augmentation = num_rows * augmentation_bytes(spec.augments, model.sample_shape, item)
    regularisers = regulariser_bytes(spec.regularises, model, num_rows, item)
    return item * (state + activations) + dropout + tables + augmentation + regularisers
