"""The port that every model passes through: all that the engine asks of what it trains.

A model is a description: frozen, hashable, plain JSON data, and free of torch until it is bound to
tensors.  All else in the engine (steps, packs, lanes, compiled programs) knows this port alone.

# K slots, B rows of a batch, E slots evaluated at once, C outputs, U dropout draws of a row,
# P numbers of a slot's row of parameters
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from ridgeline.search.engine.losses import Judged, Loss
    from ridgeline.search.engine.native import Kernels
    from ridgeline.search.engine.spec import StepSpec
    from ridgeline.search.engine.step import Region


Activation = Literal["relu", "tanh"]
"""Of the hidden units of a perceptron."""

HiddenActivation = Literal["relu", "tanh", "sigmoid"]
"""Of hidden units that a model tells of."""

LINEAR_ZONE = math.tanh(0.5)
"""Below this magnitude what tanh gives differs from its argument, which is below 1/2, by less than
8 %: there a unit is all but linear.  So is one with a sigmoid, of (1 + tanh(z/2))/2, as far as
twice what it gives, less 1, is."""


@dataclass(frozen=True)
class Parameter:
    """What training changes by gradients.

    Attributes:
        shape: of one slot's.
        is_penalised: whether l1, l2 and weight decay act on it where a run penalises the weights;
            where it penalises all, they act on every parameter.  Metrics of weights are of these.
        bound, start: initial numbers are uniform in start ± bound.
        is_by_unit: whether the first of two or more dimensions counts units, so that all else are
            a unit's incoming weights.
        input_dimension: which dimension counts the inputs: the numbers of a sample, or the ids that
            it may have; None for weights that other units feed.  At most one parameter has one.
    """

    shape: tuple[int, ...]
    is_penalised: bool
    bound: float = 0.0
    start: float = 0.0
    is_by_unit: bool = True
    input_dimension: int | None = None

    @property
    def num_units(self) -> int:
        """Units whose incoming weights a run's `max_norm` bounds: of what is penalised alone."""
        is_bounded = self.is_penalised and self.is_by_unit and len(self.shape) > 1
        return self.shape[0] if is_bounded else 0


@dataclass(frozen=True)
class Statistic:
    """What training changes otherwise, such as a running mean; all `start` at first."""

    shape: tuple[int, ...]
    start: float = 0.0


class HiddenUnits(NamedTuple):
    """The H hidden units of a layer, by what they give for rows.

    Attributes:
        activation: what they apply to their sums.
        seen_H: of each unit with relu, the highest value; of others how many values are in
            LINEAR_ZONE.
        num_values: of each unit: one a row, or of a convolution one for each place in each row.
    """

    activation: HiddenActivation
    seen_H: Tensor
    num_values: int

    @classmethod
    def of(cls, activation: HiddenActivation, values: Tensor, dimension: int = 1) -> HiddenUnits:
        """What is seen of these values.

        Args:
            dimension: of the values, that counts the units.
        """
        others = [i for i in range(values.dim()) if i != dimension]
        if activation == "relu":
            seen_H = values.amax(others)
        else:
            centred = values if activation == "tanh" else 2 * values - 1
            seen_H = (centred.abs() < LINEAR_ZONE).sum(others)
        return cls(activation, seen_H, values.numel() // values.shape[dimension])


class Rows(NamedTuple):
    """Which rows of a batch count.

    `invalid_KB` is None where all of every slot's rows are samples.
    """

    invalid_KB: Tensor | None
    num_valid_K11: Tensor

    def mask(self, values_KHB: Tensor) -> Tensor:
        """Zeros in the rows that do not count, in place.

        By selection: a product with 0 would keep a NaN.
        """
        if self.invalid_KB is None:
            return values_KHB
        return values_KHB.masked_fill_(self.invalid_KB[:, None], 0)


class BoundModel(ABC):
    """A model over the tensors of K slots."""

    @abstractmethod
    def loss_gradients(
        self,
        x_KB: Tensor,
        targets_KB: Tensor,
        rows: Rows,
        dropout_KUB: Tensor | None,
        loss: Loss,
    ) -> Judged:
        """Fill the gradients of the sum over slots of each slot's mean loss; in training mode.

        Args:
            x_KB: samples, [K, B, *sample_shape].
            targets_KB: as the loss has them: [K, B], or [K, C, B].
            dropout_KUB: 0 for what is dropped, 1/(1 - p) for what is kept; None drops nothing.

        Returns:
            what the loss says of the outputs.
        """


class NativeProgram(ABC):
    """Whole steps and evaluations of a model by the native kernels of a CPU."""

    @abstractmethod
    def bind_steps(
        self,
        kernels: Kernels,
        spec: StepSpec,
        inputs: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        regions: Sequence[Region],
    ) -> Callable[[int, int], None]:
        """A function of a number of slots, the first ones, and of steps; see `eager_steps`."""

    @abstractmethod
    def bind_evaluation(
        self, kernels: Kernels, chunks: Sequence[Mapping[str, Tensor]]
    ) -> Callable[[int], None]:
        """As `evaluation.BindEvaluation` has it."""

    @abstractmethod
    def counts_show(
        self,
        spec: StepSpec,
        width: int,
        num_evaluated_rows: int,
        num_evaluated: int,
        *,
        with_onednn: bool | None,
    ) -> bool:
        """Whether bits of a slot depend on how many slots are computed at once, up to `width`.

        The caller computes on one thread of a CPU, and has chosen the library that multiplies.

        Args:
            num_evaluated_rows, num_evaluated: of an evaluation, the rows and most slots at once.
        """


class Model(ABC):
    """A model whose gradients are those of K models in one set of stacked tensors.

    Subclasses are frozen dataclasses of plain JSON data, and stand in `registry`.
    """

    kind: ClassVar[str]
    """Its name in `registry`: part of stored checkpoints, so never change or reuse one."""

    num_outputs: int
    """C."""

    @property
    @abstractmethod
    def sample_shape(self) -> tuple[int, ...]:
        """Of one sample."""

    @property
    @abstractmethod
    def num_draws(self) -> int:
        """U; 0 where there is nothing to drop."""

    @property
    @abstractmethod
    def numbers_per_row(self) -> int:
        """Numbers of memory that a row of a training batch takes, those of dropout not counted."""

    @property
    def takes_ids(self) -> bool:
        """Whether samples are ids, int64, rather than numbers."""
        return False

    @property
    def source(self) -> str:
        """A digest of code that its arithmetic follows from, beside this engine and torch.

        Part of the identity of every program that trains it; empty where there is no such code.
        """
        return ""

    @property
    def compiles(self) -> bool:
        """Whether a program can be compiled."""
        return True

    @property
    def fixes_sizes(self) -> bool:
        """Whether a program is for one width and batch size; otherwise it is for all of them."""
        return False

    def packs(self, device_type: str) -> bool:
        """Whether a pack can be faster than its runs one by one, on this kind of device."""
        return True

    @property
    def compiler_settings(self) -> dict[str, Any]:
        """Inductor's, where its defaults would not do."""
        return {}

    @abstractmethod
    def parameters(self) -> dict[str, Parameter]:
        """By name, as `nn.Module.named_parameters` would have them; at least one."""

    @abstractmethod
    def statistics(self) -> dict[str, Statistic]:
        """By name; apart from those of the parameters."""

    def initial(self, seeds: Sequence[int]) -> Sequence[Mapping[str, Tensor]] | None:
        """Parameters and statistics of runs by name, on the CPU, each from its seed alone.

        None where `parameters` and `statistics` say how they begin.
        """
        return None

    @abstractmethod
    def bind(
        self,
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        statistics: Mapping[str, Tensor],
    ) -> BoundModel:
        """The model over stacks [K, …] by name; training updates the statistics."""

    @abstractmethod
    def outputs(
        self, parameters: Mapping[str, Tensor], statistics: Mapping[str, Tensor], x: Tensor
    ) -> Tensor:
        """Outputs of E slots for the same rows in evaluation mode, [E, C, B].

        Args:
            parameters, statistics: [E, …] by name.
            x: samples, [B, *sample_shape].
        """

    def outputs_of_one(
        self, parameters: Mapping[str, Tensor], statistics: Mapping[str, Tensor], x: Tensor
    ) -> Tensor:
        """As `outputs`, of one slot: tensors have no dimension of slots.  [B, C].

        The eager form evaluates by it, slot by slot.
        """
        stack, its_statistics = (
            {name: tensor[None] for name, tensor in tensors.items()}
            for tensors in (parameters, statistics)
        )
        return self.outputs(stack, its_statistics, x)[0].t()

    def hidden_of_one(
        self, parameters: Mapping[str, Tensor], statistics: Mapping[str, Tensor], x: Tensor
    ) -> Mapping[str, HiddenUnits]:
        """The hidden units of one slot by layer, in evaluation mode; empty where none are known.

        The arguments are those of `outputs_of_one`.
        """
        return {}

    @abstractmethod
    def forward_flops(self, num_rows: int) -> int:
        """Of the products that outputs of so many rows take."""

    @abstractmethod
    def step_flops(self, num_rows: int) -> int:
        """Of the products of one slot's step."""

    def native(self, loss: str) -> NativeProgram | None:
        """The native program that trains it by the loss of this name; None where there is none."""
        return None

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data for `registry.model_from_dict`."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]
