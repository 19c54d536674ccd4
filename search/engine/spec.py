"""What the runs of a lane have in common: all that fixes the training step but its width and form.

Free of torch, and plain JSON data, since a program is compiled in a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from ridgeline.search.engine.alignment import round_up
from ridgeline.search.engine.config import Augmentation, Regulariser, RunConfig
from ridgeline.search.engine.models.base import Model, NativeProgram

Family = Literal["sgd", "adam"]

FOR_ALL_NUMBERS: tuple[Augmentation, ...] = ("input_noise", "mixup")
"""The kinds of augmentation that need no image."""

LOSSES_OF_LABELS = ("cross_entropy", "binary_cross_entropy")
"""Those that take smoothed labels."""


@dataclass(frozen=True)
class StepSpec:
    """A training step, to the last operation.

    Runs with dropout are apart from those without, and clipped ones from the others, and so are
    runs that augment in different ways, or weigh classes: all of it costs every slot of a pack, and
    what a run pays for must not depend on its neighbours.  Runs with and without regularisers share
    packs: a pack has those that any of its runs needs, and one without them has none.

    Attributes:
        augments: the kinds of augmentation in use, in the order of `Augmentation`.
        loss: its name in `losses`.
        regularises: those that a pack has, in the order of `Regulariser`; `of` leaves them out.
        weighs: whether classes have weights.

    Raises:
        ValueError: the model's samples cannot be augmented so.
    """

    model: Model
    num_samples: int
    batch_size: int
    family: Family
    drops: bool
    clips: bool
    dtype: str
    loss: str = "cross_entropy"
    augments: tuple[Augmentation, ...] = ()
    regularises: tuple[Regulariser, ...] = ()
    weighs: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "augments", tuple(self.augments))
        object.__setattr__(self, "regularises", tuple(self.regularises))
        if self.augments and self.model.takes_ids:
            raise ValueError(f"{self.augments[0]} must be 0: the samples are ids")
        shape = self.model.sample_shape
        for kind in self.augments:
            if kind not in FOR_ALL_NUMBERS and len(shape) != 3:
                raise ValueError(
                    f"{kind} must be 0: it is for images of shape [channels, height, width], "
                    f"the samples have the shape {[*shape]}"
                )

    @classmethod
    def of(cls, config: RunConfig, model: Model, num_samples: int, dtype: str) -> StepSpec:
        """The step that trains a run; `dtype` such as float32.

        Raises:
            ValueError: a regulariser or the class weights of the run are not for this model or
                loss.
        """
        spec = cls(
            model=model,
            num_samples=num_samples,
            batch_size=min(config.batch_size, num_samples),
            family="sgd" if config.optimizer == "sgd" else "adam",
            drops=config.dropout > 0 and model.num_draws > 0,
            clips=config.clip_norm > 0,
            dtype=dtype,
            loss=config.loss,
            augments=config.augmentations,
            weighs=bool(config.class_weights),
        )
        if spec.weighs and spec.loss != "cross_entropy":
            raise ValueError(f"class_weights must be left out: {spec.loss} has no classes")
        if spec.weighs and len(config.class_weights) != model.num_outputs:
            raise ValueError(
                f"class_weights must be {model.num_outputs}, one for each class, not "
                f"{len(config.class_weights)}"
            )
        if config.input_dropout > 0 and model.takes_ids:
            raise ValueError("input_dropout must be 0: the samples are ids")
        if config.label_smoothing > 0 and spec.loss not in LOSSES_OF_LABELS:
            raise ValueError(f"label_smoothing must be 0: {spec.loss} has no labels")
        return spec

    def regularising(self, kinds: Iterable[Regulariser]) -> StepSpec:
        """This step with these regularisers too."""
        wanted = {*self.regularises, *kinds}
        ordered = tuple(kind for kind in get_args(Regulariser) if kind in wanted)
        return self if ordered == self.regularises else replace(self, regularises=ordered)

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

    def native(self) -> NativeProgram | None:
        """Whole steps by native kernels; there are none of runs that augment or weigh classes."""
        return None if self.augments or self.weighs else self.model.native(self.loss)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        return {**asdict(self), "model": self.model.as_dict()}
