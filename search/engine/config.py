"""What a run is told: its hyperparameters, whatever the model.  Free of torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, get_args

from ridgeline.search.engine.checks import check_bool, check_choice, check_float, check_int

OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["constant", "step", "cosine", "one_cycle"]
Penalize = Literal["weights", "all"]
LambdaConvention = Literal["sum", "half_per_sample"]
L1Update = Literal["subgradient", "proximal"]
Monitor = Literal[
    "validation_accuracy",
    "validation_loss",
    "validation_balanced_accuracy",
    "validation_macro_f1",
    "validation_roc_auc",
    "validation_log_loss",
    "validation_mae",
    "validation_rmse",
    "validation_r2",
    "validation_mse",
]
LossName = Literal["cross_entropy", "binary_cross_entropy", "mean_squared_error"]
Direction = Literal["maximize", "minimize"]
Augmentation = Literal[
    "shift", "flip", "rotation", "cutout", "brightness", "contrast", "input_noise", "mixup"
]
Regulariser = Literal["max_norm", "input_dropout", "label_smoothing", "gradient_noise"]

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Range:
    """The finite numbers that a field may have.

    From `low` on, or above it; below `below`; and up to `high`.
    """

    low: float
    open_low: bool = False
    below: float = math.inf
    high: float = math.inf


RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "learning_rate": Range(0.0, open_low=True),
        "l1": Range(0.0),
        "l2": Range(0.0),
        "weight_decay": Range(0.0),
        "dropout": Range(0.0, below=1.0),
        "momentum": Range(0.0, below=1.0),
        "warmup": Range(0.0, below=1.0),
        "clip_norm": Range(0.0),
        "max_norm": Range(0.0),
        "input_dropout": Range(0.0, below=1.0),
        "label_smoothing": Range(0.0, below=1.0),
        "gradient_noise": Range(0.0),
        "min_delta": Range(0.0),
        "shift": Range(0.0, high=256.0),
        "flip": Range(0.0, high=1.0),
        "rotation": Range(0.0, high=180.0),
        "cutout": Range(0.0, high=1.0),
        "brightness": Range(0.0),
        "contrast": Range(0.0, high=1.0),
        "input_noise": Range(0.0),
        "mixup": Range(0.0, high=16.0),
    }
)
"""Of the fields of `RunConfig` that are no whole numbers; whoever offers them may offer less."""


@dataclass(frozen=True)
class RunConfig:
    """One trial with one seed, completely.

    The objective is `loss + l1·Σ|w| + l2·Σw²` with `lambda_convention="sum"` and
    `loss + l1/(2m)·Σ|w| + l2/(2m)·Σw²` with `"half_per_sample"`, m being the number of training
    samples.  `weight_decay` is decoupled for every optimizer.  All three act on the weight
    matrices; with `penalize="all"` on biases and normalisation parameters too.

    `momentum` is that of SGD, Nesterov's (as `torch.optim.SGD` has it) with `nesterov`; without
    momentum that is plain SGD, so that a search over both may meet any pair.  Adam and AdamW have
    fixed betas and read neither.

    `schedule` and `warmup`, a share of all steps, shape the learning rate over the steps of all
    `epochs`; `learning_rate` is its highest value.  `one_cycle` rises by itself and does not read
    `warmup`.  The formulas stand in `rates`.  Decoupled decay and the proximal update of l1 go by
    the rate of the step.

    `clip_norm`, where above 0, bounds the L2 norm over all parameters of the gradient of the
    objective (the loss and what l1 and l2 add): g ← g·min(1, clip_norm/(‖g‖ + 1e-6)), as
    `torch.nn.utils.clip_grad_norm_` after `backward()`.  Neither decoupled decay nor the proximal
    update is part of it.

    The strengths of four regularisers, of which 0 means none; formulas and sources stand in
    `regularise`.  `max_norm`: the most that the norm of a unit's incoming weights may be.
    `input_dropout`: the share of a sample's numbers that is dropped.  `label_smoothing`: the share
    of a target that is spread evenly over all classes.  `gradient_noise`: the variance of the noise
    that is added to the gradient in the first step; it falls from then on.  They act in training
    alone: evaluation drops nothing, and its loss is of the targets as they are.

    The strengths of augmentation, of which 0 means none, change the samples that a step learns
    from, and never those of an evaluation; formulas stand in `augment`.  `shift`: pixels, the
    farthest that an image moves along each side.  `flip`: the probability that left and right are
    swapped.  `rotation`: degrees, the farthest that an image turns to either side.  `cutout`: the
    share of the area that is set to 0.  `brightness`: the most that is added to or taken from a
    whole image, in standard deviations of the standardised features; `contrast`: the share by
    which its differences from its mean grow or shrink at most.  `input_noise`: the standard
    deviation of what is added to each number, in those of the standardised features.  `mixup`: the
    parameter alpha of the distribution of shares.  All but the last two are for images.

    `class_weights` are those of the classes in training, one each, for cross-entropy; none weighs
    all alike.  See `losses.WeighedCrossEntropy`.

    `loss` is a name in `losses`, where it is told what `monitor` may be with it.

    `patience` is the number of epochs in a row that may pass without `monitor` improving by more
    than `min_delta`; None trains all `epochs` and keeps the last.

    Raises:
        ValueError: naming the field that is illegal.
    """

    seed: int
    learning_rate: float
    batch_size: int
    epochs: int
    l1: float = 0.0
    l2: float = 0.0
    weight_decay: float = 0.0
    dropout: float = 0.0
    momentum: float = 0.0
    nesterov: bool = False
    optimizer: OptimizerName = "adam"
    schedule: ScheduleName = "constant"
    warmup: float = 0.0
    clip_norm: float = 0.0
    max_norm: float = 0.0
    input_dropout: float = 0.0
    label_smoothing: float = 0.0
    gradient_noise: float = 0.0
    penalize: Penalize = "weights"
    lambda_convention: LambdaConvention = "sum"
    l1_update: L1Update = "subgradient"
    patience: int | None = None
    min_delta: float = 0.0
    shift: float = 0.0
    flip: float = 0.0
    rotation: float = 0.0
    cutout: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    input_noise: float = 0.0
    mixup: float = 0.0
    class_weights: tuple[float, ...] = ()
    loss: LossName = "cross_entropy"
    monitor: Monitor = "validation_accuracy"
    direction: Direction = "maximize"

    def __post_init__(self) -> None:
        check_int("seed", self.seed, low=0, high=MAX_SEED)
        check_int("batch_size", self.batch_size, low=1)
        check_int("epochs", self.epochs, low=1)
        for name, allowed in RANGES.items():
            check_float(
                name,
                getattr(self, name),
                low=allowed.low,
                open_low=allowed.open_low,
                below=allowed.below,
                high=allowed.high,
            )
        check_bool("nesterov", self.nesterov)
        check_choice("optimizer", self.optimizer, OptimizerName)
        check_choice("schedule", self.schedule, ScheduleName)
        check_choice("penalize", self.penalize, Penalize)
        check_choice("lambda_convention", self.lambda_convention, LambdaConvention)
        check_choice("l1_update", self.l1_update, L1Update)
        if self.patience is not None:
            check_int("patience", self.patience, low=1)
        object.__setattr__(self, "class_weights", tuple(self.class_weights))
        for weight in self.class_weights:
            check_float("class_weights", weight, low=0.0, open_low=True)
        check_choice("loss", self.loss, LossName)
        check_choice("monitor", self.monitor, Monitor)
        check_choice("direction", self.direction, Direction)

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """The kinds of augmentation whose strength is above 0, in the order of `Augmentation`."""
        return tuple(kind for kind in get_args(Augmentation) if getattr(self, kind) > 0)

    @cached_property  # asked for of every run that waits, whenever one may begin
    def regularisers(self) -> tuple[Regulariser, ...]:
        """The kinds of `Regulariser` whose strength is above 0, in their order."""
        return tuple(kind for kind in get_args(Regulariser) if getattr(self, kind) > 0)

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """The values of the fields that need none, as `as_dict` has them."""
        usual = {field.name: field.default for field in fields(cls) if field.default is not MISSING}
        return {**usual, "class_weights": []}

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data from which `RunConfig(**data)` builds an equal configuration."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "class_weights": [*self.class_weights]}
