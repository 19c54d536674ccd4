"""The multilayer perceptron: its description, and what the engine asks of one.  Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from ridgeline.search.engine.checks import check_bool, check_choice, check_int
from ridgeline.search.engine.models.base import (
    Activation,
    BoundModel,
    HiddenUnits,
    Model,
    NativeProgram,
    Parameter,
    Statistic,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Mlp(Model):
    """Per hidden layer: linear, batch norm (where asked for), activation, dropout.

    Then a last linear layer to the outputs.  Without `hidden` that is linear, or with
    cross-entropy softmax, regression.

    Names are `layers.0.weight` [H, D], `layers.0.bias` [H], `norms.0.weight` [H] and so on, as
    `nn.Linear` and `nn.BatchNorm1d` in two `nn.ModuleList`s would have them.

    Raises:
        ValueError: naming the field that is illegal.
    """

    kind: ClassVar[str] = "mlp"

    num_features: int
    hidden: tuple[int, ...]
    num_outputs: int
    activation: Activation = "relu"
    batch_norm: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        check_int("num_features", self.num_features, low=1)
        for width in self.hidden:
            check_int("hidden", width, low=1)
        check_int("num_outputs", self.num_outputs, low=1)
        check_choice("activation", self.activation, Activation)
        check_bool("batch_norm", self.batch_norm)

    @property
    def widths(self) -> tuple[int, ...]:
        """Features, hidden units and outputs: linear layer i maps widths[i] to widths[i + 1]."""
        return (self.num_features, *self.hidden, self.num_outputs)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return (self.num_features,)

    @property
    def num_draws(self) -> int:
        return sum(self.hidden)

    @property
    def numbers_per_row(self) -> int:
        per_unit = 3 if self.batch_norm else 2
        return self.num_features + per_unit * sum(self.hidden) + 3 * self.num_outputs

    @property
    def compiler_settings(self) -> dict[str, Any]:
        # Inductor of torch 2.13 fails with a KeyError (`get_read_expr`) on what it fuses of a
        # batch norm, unless values that are read are written out first.
        return {"realize_reads_threshold": 1} if self.batch_norm else {}

    def parameters(self) -> dict[str, Parameter]:
        """Distributed as `nn.Linear` and `nn.BatchNorm1d` draw theirs.

        Weights and biases of a linear layer are uniform in ±1/√(units in) (what
        `kaiming_uniform_(a=√5)` amounts to); scales are 1, shifts 0.
        """
        layers = [*enumerate(pairwise(self.widths))]
        return {
            **{
                f"layers.{i}.weight": Parameter(
                    (num_out, num_in),
                    True,
                    bound=num_in**-0.5,
                    input_dimension=1 if i == 0 else None,
                )
                for i, (num_in, num_out) in layers
            },
            **{
                f"layers.{i}.bias": Parameter((num_out,), False, bound=num_in**-0.5)
                for i, (num_in, num_out) in layers
            },
            **{
                f"norms.{i}.{name}": Parameter((width,), False, start=start)
                for i, width in enumerate(self._normed)
                for name, start in (("weight", 1.0), ("bias", 0.0))
            },
        }

    def statistics(self) -> dict[str, Statistic]:
        return {
            f"norms.{i}.{name}": Statistic((width,), start)
            for i, width in enumerate(self._normed)
            for name, start in (("running_mean", 0.0), ("running_var", 1.0))
        }

    def bind(
        self,
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        statistics: Mapping[str, Tensor],
    ) -> BoundModel:
        from ridgeline.search.engine.models.mlp_layers import StackedMlp

        return StackedMlp(self, parameters, gradients, statistics)

    def outputs(
        self, parameters: Mapping[str, Tensor], statistics: Mapping[str, Tensor], x: Tensor
    ) -> Tensor:
        from ridgeline.search.engine.models.mlp_layers import outputs

        return outputs(self, parameters, statistics, x)

    def outputs_of_one(
        self, parameters: Mapping[str, Tensor], statistics: Mapping[str, Tensor], x: Tensor
    ) -> Tensor:
        from ridgeline.search.engine.models.mlp_layers import outputs_of_one

        return outputs_of_one(self, parameters, statistics, x)

    def hidden_of_one(
        self, parameters: Mapping[str, Tensor], statistics: Mapping[str, Tensor], x: Tensor
    ) -> Mapping[str, HiddenUnits]:
        from ridgeline.search.engine.models.mlp_layers import hidden_of_one

        return {
            f"layers.{i}": HiddenUnits.of(self.activation, values_BH)
            for i, values_BH in enumerate(hidden_of_one(self, parameters, statistics, x))
        }

    def forward_flops(self, num_rows: int) -> int:
        return sum(2 * num_rows * d * h for d, h in pairwise(self.widths))

    def step_flops(self, num_rows: int) -> int:
        first = 2 * num_rows * self.widths[0] * self.widths[1]
        return 3 * self.forward_flops(num_rows) - first  # the data need no gradient

    def native(self, loss: str) -> NativeProgram | None:
        if self.activation != "relu" or self.batch_norm or loss != "cross_entropy":
            return None
        from ridgeline.search.engine.models.mlp_native import NativeMlp

        return NativeMlp(self)

    @property
    def _normed(self) -> tuple[int, ...]:
        return self.hidden if self.batch_norm else ()
