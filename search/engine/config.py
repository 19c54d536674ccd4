"""What a run is told: the shape of its model and its hyperparameters.  Free of torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

Activation = Literal["relu", "tanh"]
OptimizerName = Literal["sgd", "adam", "adamw"]
ScheduleName = Literal["constant", "step", "cosine", "one_cycle"]
Penalize = Literal["weights", "all"]
LambdaConvention = Literal["sum", "half_per_sample"]
L1Update = Literal["subgradient", "proximal"]
Monitor = Literal["validation_accuracy", "validation_loss"]
Direction = Literal["maximize", "minimize"]

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class ModelShape:
    """A multilayer perceptron: everything about a model that changes the shape of a tensor.

    Per hidden layer: linear, batch norm (where asked for), activation, dropout.  Then a last linear
    layer to the classes.  An empty `hidden` is softmax regression.

    Raises:
        ValueError: naming the field that is illegal.
    """

    num_features: int
    hidden: tuple[int, ...]
    num_classes: int
    activation: Activation = "relu"
    batch_norm: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(self.hidden))
        _check_int("num_features", self.num_features, low=1)
        for width in self.hidden:
            _check_int("hidden", width, low=1)
        _check_int("num_classes", self.num_classes, low=2)
        _check_choice("activation", self.activation, Activation)
        _check_bool("batch_norm", self.batch_norm)

    @property
    def widths(self) -> tuple[int, ...]:
        """Features, hidden units and classes: linear layer i maps widths[i] to widths[i + 1]."""
        return (self.num_features, *self.hidden, self.num_classes)


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
    penalize: Penalize = "weights"
    lambda_convention: LambdaConvention = "sum"
    l1_update: L1Update = "subgradient"
    patience: int | None = None
    min_delta: float = 0.0
    monitor: Monitor = "validation_accuracy"
    direction: Direction = "maximize"

    def __post_init__(self) -> None:
        _check_int("seed", self.seed, low=0, high=MAX_SEED)
        _check_float("learning_rate", self.learning_rate, low=0.0, open_low=True)
        _check_int("batch_size", self.batch_size, low=1)
        _check_int("epochs", self.epochs, low=1)
        _check_float("l1", self.l1, low=0.0)
        _check_float("l2", self.l2, low=0.0)
        _check_float("weight_decay", self.weight_decay, low=0.0)
        _check_float("dropout", self.dropout, low=0.0, below=1.0)
        _check_float("momentum", self.momentum, low=0.0, below=1.0)
        _check_bool("nesterov", self.nesterov)
        _check_choice("optimizer", self.optimizer, OptimizerName)
        _check_choice("schedule", self.schedule, ScheduleName)
        _check_float("warmup", self.warmup, low=0.0, below=1.0)
        _check_float("clip_norm", self.clip_norm, low=0.0)
        _check_choice("penalize", self.penalize, Penalize)
        _check_choice("lambda_convention", self.lambda_convention, LambdaConvention)
        _check_choice("l1_update", self.l1_update, L1Update)
        if self.patience is not None:
            _check_int("patience", self.patience, low=1)
        _check_float("min_delta", self.min_delta, low=0.0)
        _check_choice("monitor", self.monitor, Monitor)
        _check_choice("direction", self.direction, Direction)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON data from which `RunConfig(**data)` builds an equal configuration."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _check_int(name: str, value: object, *, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, not {value!r}")
    if value < low:
        raise ValueError(f"{name} must be at least {low}, not {value}")
    if high is not None and value > high:
        raise ValueError(f"{name} must be at most {high}, not {value}")


def _check_float(
    name: str, value: object, *, low: float, open_low: bool = False, below: float = math.inf
) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, not {value!r}")
    if value < low or (open_low and value == low):
        raise ValueError(f"{name} must be {'above' if open_low else 'at least'} {low}, not {value}")
    if value >= below:
        raise ValueError(f"{name} must be below {below}, not {value}")


def _check_choice(name: str, value: object, choices: Any) -> None:
    if value not in get_args(choices):
        known = ", ".join(get_args(choices))
        raise ValueError(f"{name} must be one of {known}, not {value!r}")


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {value!r}")
