"""The oracle: a plain training loop of `nn.Module` and `torch.optim`.

Of the engine it takes the initial weights, the order of the samples, the uniform numbers behind
the dropout masks and what `plain_augment` names, and nothing else.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler

from ridgeline.search.engine import DeviceData, Mlp, RunConfig, rng
from ridgeline.search.engine.layout import layouts
from ridgeline.search.engine.models.base import Model
from ridgeline.search.engine.models.module import ModuleModel
from tests.engine.models import nets
from tests.engine.models.toy import PlainToy, Toy
from tests.engine.plain_augment import augmented
from tests.engine.plain_regularise import (
    add_gradient_noise,
    bound_norms,
    without_dropped_inputs,
)


class PlainMlp(nn.Module):
    def __init__(self, shape: Mlp) -> None:
        super().__init__()
        widths = [shape.num_features, *shape.hidden, shape.num_outputs]
        self.hidden = list(shape.hidden)
        self.layers = nn.ModuleList(
            nn.Linear(widths[i], widths[i + 1]) for i in range(len(widths) - 1)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(width) for width in (shape.hidden if shape.batch_norm else ())
        )
        self.activation = torch.relu if shape.activation == "relu" else torch.tanh

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        """Outputs [B, C]; `kept` [B, U] multiplies the hidden units."""
        masks = None if kept is None else kept.split(self.hidden, dim=1)
        for i, layer in enumerate(self.layers[:-1]):
            x = layer(x)
            if len(self.norms):
                x = self.norms[i](x)
            x = self.activation(x)
            if masks is not None:
                x = x * masks[i]
        return self.layers[-1](x)


def plain_module(model: Model) -> nn.Module:
    """The model as its users would write it, with parameters of the same names."""
    if isinstance(model, Toy):
        return PlainToy(model)
    if isinstance(model, Mlp):
        return PlainMlp(model)
    assert isinstance(model, ModuleModel)
    factory = model.function()
    module = nets.WITH_MASKS.get(factory, factory)(**json.loads(model.settings))
    if factory not in nets.WITH_MASKS:
        forward = module.forward
        module.__dict__["forward"] = lambda x, kept=None: forward(x)
    return module


def penalised_of(module: nn.Module) -> list[nn.Parameter]:
    """The weights of its products: neither biases nor what belongs to a norm."""
    if isinstance(module, PlainToy):
        return [module.kernel, module.bias]
    kinds = nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding, nn.EmbeddingBag
    weights = [layer.weight for layer in module.modules() if isinstance(layer, kinds)]
    for layer in module.modules():
        if isinstance(layer, nn.MultiheadAttention):
            weights.append(layer.in_proj_weight)
        if isinstance(layer, nn.GRU):
            weights += [layer.weight_ih_l0, layer.weight_hh_l0]
    return [weight for weight in dict.fromkeys(weights) if weight.requires_grad]


@dataclass
class PlainResult:
    model: nn.Module
    train_losses: list[float] = field(default_factory=list)
    train_accuracies: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    validation_accuracies: list[float] = field(default_factory=list)


def train_plainly(config: RunConfig, shape: Model, data: DeviceData) -> PlainResult:
    dtype, num_samples = data.dtype, data.train.num_samples
    model = plain_module(shape).to(dtype)
    _load_initial_weights(model, config, shape, dtype)
    matrices = penalised_of(model)
    selected = list(model.parameters()) if config.penalize == "all" else matrices
    others = [p for p in model.parameters() if all(p is not s for s in selected)]
    optimizer = _optimizer(config, selected, others)
    num_steps = config.epochs * math.ceil(num_samples / config.batch_size)
    num_warmup_steps = round(config.warmup * num_steps)
    scheduler = scheduler_for(optimizer, config.schedule, num_steps, num_warmup_steps)
    result = PlainResult(model)
    counters = rng.counters(num_samples, data.device)
    step = 0
    for epoch in range(config.epochs):
        model.train()
        order = rng.permutations([(config.seed, epoch)], counters)[0]
        loss_sum, num_right = 0.0, 0
        for start in range(0, num_samples, config.batch_size):
            rows = order[start : start + config.batch_size]
            x, y = data.train.x[rows], data.train.y[rows]
            x, shares = augmented(config, step, x)
            x = without_dropped_inputs(config, step, x)
            logits = model(x, _dropout_mask(config, shape, step, len(rows), dtype))
            loss = _mixed_loss(config, logits, y, shares)
            optimizer.zero_grad()
            (loss + _penalty(config, selected, num_samples)).backward()
            if config.clip_norm > 0:
                nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
            if config.gradient_noise > 0:
                rest = [p for p in model.parameters() if all(p is not m for m in matrices)]
                add_gradient_noise(config, step, [*matrices, *rest])
            (rate,) = {group["lr"] for group in optimizer.param_groups}
            if config.optimizer != "adamw":
                with torch.no_grad():
                    for parameter in selected:
                        parameter -= rate * config.weight_decay * parameter
            optimizer.step()
            if config.l1_update == "proximal":
                _soft_threshold(config, rate, selected, num_samples)
            if config.max_norm > 0:
                bound_norms(config.max_norm, matrices)
            scheduler.step()
            loss_sum += loss.item() * len(rows)
            num_right += int((logits.argmax(1) == y).sum())
            step += 1
        model.eval()
        with torch.no_grad():
            logits = model(data.validation.x)
        result.train_losses.append(loss_sum / num_samples)
        result.train_accuracies.append(num_right / num_samples)
        result.validation_losses.append(F.cross_entropy(logits, data.validation.y).item())
        right = (logits.argmax(1) == data.validation.y).double().mean()
        result.validation_accuracies.append(right.item())
    return result


def _mixed_loss(config: RunConfig, logits: Tensor, y: Tensor, shares: Tensor) -> Tensor:
    """Of each row's own target, and by its share of the next row's."""
    weights = logits.new_tensor(config.class_weights) if config.class_weights else None
    own, other = (
        F.cross_entropy(
            logits, t, weight=weights, reduction="none", label_smoothing=config.label_smoothing
        )
        for t in (y, y.roll(-1))
    )
    mixed = (1 - shares.to(own)) * own + shares.to(own) * other
    # The next rows are the same ones, so their weights come to the same.
    return mixed.mean() if weights is None else mixed.sum() / weights[y].sum()


def _load_initial_weights(
    model: nn.Module, config: RunConfig, shape: Model, dtype: torch.dtype
) -> None:
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    missing = {name for name in named if "tracked" not in name and named[name].is_floating_point()}
    for layout in layouts(shape):
        rows = layout.initial_rows([config.seed], torch.device("cpu"), dtype)
        for name, view in layout.views(rows).items():
            named[name].data.copy_(view[0])
            missing.remove(name)
    assert not missing


def _optimizer(
    config: RunConfig, selected: list[nn.Parameter], others: list[nn.Parameter]
) -> torch.optim.Optimizer:
    rate = config.learning_rate
    if config.optimizer == "sgd":
        return torch.optim.SGD(
            [*selected, *others], lr=rate, momentum=config.momentum, nesterov=config.nesterov
        )
    if config.optimizer == "adam":
        return torch.optim.Adam([*selected, *others], lr=rate)
    groups = [
        {"params": selected, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=rate)


def scheduler_for(
    optimizer: torch.optim.Optimizer, schedule: str, num_steps: int, num_warmup_steps: int = 0
) -> lr_scheduler.LRScheduler:
    """torch's scheduler of a run of so many steps, to be stepped after each batch."""
    (rate,) = {group["lr"] for group in optimizer.param_groups}
    if schedule == "one_cycle":
        return lr_scheduler.OneCycleLR(optimizer, rate, total_steps=num_steps, cycle_momentum=False)
    rest = num_steps - num_warmup_steps
    scheduler: lr_scheduler.LRScheduler
    if schedule == "cosine":
        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=rest)
    elif schedule == "step":
        thirds = [math.ceil(rest / 3), math.ceil(2 * rest / 3)]
        scheduler = lr_scheduler.MultiStepLR(optimizer, milestones=thirds, gamma=0.1)
    else:
        scheduler = lr_scheduler.ConstantLR(optimizer, factor=1.0)
    if num_warmup_steps == 0:
        return scheduler
    ramp = lr_scheduler.LinearLR(
        optimizer, start_factor=1 / (num_warmup_steps + 1), total_iters=num_warmup_steps
    )
    return lr_scheduler.SequentialLR(optimizer, [ramp, scheduler], milestones=[num_warmup_steps])


def _lambda_scale(config: RunConfig, num_samples: int) -> float:
    return 1 / (2 * num_samples) if config.lambda_convention == "half_per_sample" else 1.0


def _penalty(config: RunConfig, selected: list[nn.Parameter], num_samples: int) -> Tensor:
    scale = _lambda_scale(config, num_samples)
    total = torch.zeros(())  # of the wider dtype once something is added
    for parameter in selected:
        total = total + config.l2 * scale * (parameter**2).sum()
        if config.l1_update == "subgradient":
            total = total + config.l1 * scale * parameter.abs().sum()
    return total


def _soft_threshold(
    config: RunConfig, rate: float, selected: list[nn.Parameter], num_samples: int
) -> None:
    bound = rate * config.l1 * _lambda_scale(config, num_samples)
    with torch.no_grad():
        for parameter in selected:
            parameter.copy_(parameter.sign() * (parameter.abs() - bound).clamp(min=0))


def _dropout_mask(
    config: RunConfig, shape: Model, step: int, num_rows: int, dtype: torch.dtype
) -> Tensor | None:
    if config.dropout == 0 or not shape.num_draws:
        return None
    uniform = rng.uniform(
        [config.seed],
        rng.Stream.DROPOUT,
        step,
        num_rows * shape.num_draws,
        device=torch.device("cpu"),
        dtype=dtype,
    ).view(num_rows, shape.num_draws)
    return (uniform >= config.dropout).to(dtype) / (1 - config.dropout)


def epochs_for(num_steps: int, num_samples: int, batch_size: int) -> int:
    """The epochs that at least so many steps take."""
    return math.ceil(num_steps / math.ceil(num_samples / batch_size))
