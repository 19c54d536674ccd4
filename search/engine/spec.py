"""What the runs of a lane have in common: all that fixes the training step but its width and form.

Free of torch, and plain JSON data, since a program is compiled in a process of its own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ridgeline.search.engine.alignment import round_up
from ridgeline.search.engine.config import RunConfig
from ridgeline.search.engine.models.base import Model

Family = Literal["sgd", "adam"]


@dataclass(frozen=True)
class StepSpec:
    """A training step, to the last operation.

    Runs with dropout are apart from those without, and clipped ones from the others: both cost
    every slot of a pack, and which of them a run pays for must not depend on its neighbours.

    `loss` is its name in `losses`.
    """

    model: Model
    num_samples: int
    batch_size: int
    family: Family
    drops: bool
    clips: bool
    dtype: str
    loss: str = "cross_entropy"

    @classmethod
    def of(cls, config: RunConfig, model: Model, num_samples: int, dtype: str) -> StepSpec:
        """The step that trains a run; `dtype` such as float32."""
        return cls(
            model=model,
            num_samples=num_samples,
            batch_size=min(config.batch_size, num_samples),
            family="sgd" if config.optimizer == "sgd" else "adam",
            drops=config.dropout > 0 and model.num_draws > 0,
            clips=config.clip_norm > 0,
            dtype=dtype,
        )

    @property
    def num_steps(self) -> int:
        """Steps of an epoch; the last batch takes what is left."""
        return -(-self.num_samples // self.batch_size)

    def num_rows(self, width: int) -> int:
        """Rows of a batch in a pack of `width` slots, those that only pad it included.

        In packs wider than one every slot's part of every activation begins on a 64-byte line, so
        the same kernels run for each, to the bit.
        """
        return self.batch_size if width == 1 else round_up(self.batch_size)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {**asdict(self), "model": self.model.as_dict()}
