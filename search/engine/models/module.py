"""Any `nn.Module` as a model: a function that builds it, and what it is fed with.  Free of torch.

What the function builds needs to know nothing of packs: see `module_tracing` for how it is batched,
`module_substitutes` for its dropout and batch norm, and `module_survey` for what cannot be batched.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from ridgeline.search.engine.checks import check_int
from ridgeline.search.engine.models.base import (
    BoundModel,
    HiddenUnits,
    Model,
    NativeProgram,
    Parameter,
    Statistic,
)
from ridgeline.search.engine.sources import package_digest

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ridgeline.search.engine.models.module_survey import Survey


@dataclass(frozen=True)
class ModuleModel(Model):
    """A model that a function builds.

    Its parameters of two or more dimensions are penalised, except those of norms.  Its statistics
    are its buffers of real numbers and the parameters that require no gradient.  Buffers of whole
    numbers never change where slots are computed at once; otherwise they are statistics too, as
    bytes.  `max_norm` bounds the rows of what is penalised: incoming weights of
    a unit or an output channel, and an embedding's vectors; but not weights of transposed
    convolutions, which have the inputs first.  A run's `dropout` takes the place of every
    probability above 0 in the module's calls of dropout; those of 0 drop nothing.

    Attributes:
        factory: where the function stands, such as `my_package.nets:residual`.
        settings: its keyword arguments, as JSON; see `of`.
        shape: of one sample.
        num_outputs: the module gives [rows, num_outputs].
        num_ids: samples are whole numbers below this; None for real numbers.

    Raises:
        ValueError: naming the field that is illegal.
    """

    kind: ClassVar[str] = "module"

    factory: str
    settings: str
    shape: tuple[int, ...]
    num_outputs: int
    num_ids: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        for size in self.shape:
            check_int("shape", size, low=1)
        check_int("num_outputs", self.num_outputs, low=1)
        if self.num_ids is not None:
            check_int("num_ids", self.num_ids, low=1)

    @classmethod
    def of(
        cls,
        factory: Callable[..., nn.Module],
        shape: tuple[int, ...],
        num_outputs: int,
        num_ids: int | None = None,
        **settings: Any,
    ) -> ModuleModel:
        """The model that a function builds from settings.

        Raises:
            ValueError: the function cannot be imported by its name, or settings are not JSON.
        """
        name = f"{factory.__module__}:{factory.__qualname__}"
        try:
            text = json.dumps(settings, sort_keys=True)
        except TypeError as exc:
            raise ValueError(f"settings of {name} must be plain JSON data: {exc}") from exc
        model = cls(name, text, shape, num_outputs, num_ids)
        if model.function() is not factory:
            raise ValueError(f"{name} is another function: give one from the top of a module")
        return model

    def function(self) -> Callable[..., nn.Module]:
        """The function that builds the module.

        Raises:
            ValueError: it cannot be imported.
        """
        place, _, name = self.factory.partition(":")
        try:
            found: Any = import_module(place)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError) as exc:
            raise ValueError(
                f"{self.factory} cannot be imported ({exc}): it must stand at the top of a module"
            ) from exc
        function: Callable[..., nn.Module] = found
        return function

    @property
    def survey(self) -> Survey:
        """What is known about the module.

        Raises:
            ValueError: it cannot be built, or does not fit the samples.
        """
        from ridgeline.search.engine.models.module_template import template_of

        return template_of(self).survey

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.shape

    @property
    def takes_ids(self) -> bool:
        return self.num_ids is not None

    @property
    def source(self) -> str:
        return package_digest(self.factory.partition(":")[0])

    @property
    def compiles(self) -> bool:
        return self.survey.obstacle is None

    @property
    def fixes_sizes(self) -> bool:
        # A traced graph holds them as numbers.
        return True

    def packs(self, device_type: str) -> bool:
        # Convolutions of a pack are grouped ones, which on a CPU were never faster.
        survey = self.survey
        return survey.obstacle is None and not (device_type == "cpu" and survey.convolves)

    @property
    def num_draws(self) -> int:
        return self.survey.num_draws

    @property
    def numbers_per_row(self) -> int:
        return self.survey.numbers_per_row

    def parameters(self) -> dict[str, Parameter]:
        from ridgeline.search.engine.models.module_template import template_of

        template = template_of(self)
        return {
            name: Parameter(
                template.shapes[name],
                name in template.penalised,
                is_by_unit=name not in template.transposed,
                input_dimension=0 if name == template.embedding else None,
            )
            for name in template.parts.parameters
        }

    def statistics(self) -> dict[str, Statistic]:
        from ridgeline.search.engine.models.module_template import template_of

        template = template_of(self)
        real = {name: Statistic(template.shapes[name]) for name in template.parts.statistics}
        return real | {name: Statistic((n.nbytes,)) for name, n in self._whole_numbers().items()}

    def initial(self, seeds: Sequence[int]) -> list[Mapping[str, Tensor]]:
        """What the function gives when torch's, Python's and numpy's generators begin at a seed.

        On the CPU and in float32, so the numbers are the same on every device.
        """
        from ridgeline.search.engine.models.module_template import initial
        from ridgeline.search.engine.models.module_whole import as_bytes

        whole = {name: as_bytes(numbers) for name, numbers in self._whole_numbers().items()}
        return [{**own, **whole} for own in initial(self, tuple(seeds))]

    def native(self, loss: str) -> NativeProgram | None:
        if loss != "cross_entropy":
            return None
        from ridgeline.search.engine.models.module_native import native_of

        return native_of(self)

    def _whole_numbers(self) -> Mapping[str, Tensor]:
        """The buffers of whole numbers that are statistics, as a run begins with them."""
        from ridgeline.search.engine.models.module_template import template_of
        from ridgeline.search.engine.models.module_whole import whole_numbers

        return whole_numbers(template_of(self))

    def bind(
        self,
        parameters: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
        statistics: Mapping[str, Tensor],
    ) -> BoundModel:
        from ridgeline.search.engine.models.module_stack import ModuleSlots

        return ModuleSlots(self, parameters, gradients, statistics)

    def outputs(
        self, parameters: Mapping[str, Tensor], statistics: Mapping[str, Tensor], x: Tensor
    ) -> Tensor:
        from ridgeline.search.engine.models.module_stack import outputs

        return outputs(self, parameters, statistics, x)

    def hidden_of_one(
        self, parameters: Mapping[str, Tensor], statistics: Mapping[str, Tensor], x: Tensor
    ) -> Mapping[str, HiddenUnits]:
        from ridgeline.search.engine.models.module_hidden import hidden_of_one

        return hidden_of_one(self, parameters, statistics, x)

    def forward_flops(self, num_rows: int) -> int:
        return self.survey.forward_flops * num_rows

    def step_flops(self, num_rows: int) -> int:
        return self.survey.step_flops * num_rows
