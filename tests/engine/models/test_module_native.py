"""Modules that are perceptrons train by native steps, and no others do."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn import functional
from torch.testing import assert_close

from ridgeline.search.engine import Began, LaneOptions, Lanes, Pack
from ridgeline.search.engine.admission import ROOM
from ridgeline.search.engine.models.mlp import Mlp
from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.models.module_native import native_of
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.program import ProgramIdentity
from tests.engine.lane_runs import drain, outcomes
from tests.engine.models import nets
from tests.engine.models.test_contract import assert_same, results
from tests.engine.plain import epochs_for, train_plainly
from tests.engine.sets import CPU, config, fill, samples, step_spec

NUM_TRAIN, BATCH_SIZE = 49, 15  # whose last batch is four rows
EXACT = {"rtol": 1e-10, "atol": 1e-12}


class Perceptron(nn.Module):
    """Layers with functions between them."""

    def __init__(self, widths: list[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(len(x), -1)
        for layer in self.layers[:-1]:
            x = functional.dropout(functional.relu(layer(x)), self.dropout, self.training)
        last: Tensor = self.layers[-1](x)
        return last


class PerceptronWithMasks(Perceptron):
    """What `Perceptron` is to come to, with `kept` [rows, draws] for its dropout."""

    def forward(self, x: Tensor, kept: Tensor | None = None) -> Tensor:
        x = x.flatten(1)
        widths = [layer.out_features for layer in self.layers[:-1]]
        masks = [1.0] * len(widths) if kept is None else kept.split(widths, dim=1)
        for layer, mask in zip(self.layers, masks, strict=False):
            x = functional.relu(layer(x)) * mask
        last: Tensor = self.layers[-1](x)
        return last


def sequence(last: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(12, 7), nn.ReLU(inplace=True), nn.Linear(7, 5), nn.ReLU(),
        nn.Linear(5, last),
    )  # fmt: skip


def linear() -> nn.Module:
    return nn.Linear(12, 3)


def mixed() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 7), nn.ReLU(), nn.Dropout(0.1), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3)
    )


def with_tanh() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 3))


def without_bias() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 7, bias=False), nn.ReLU(), nn.Linear(7, 3))


def with_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))


class Residual(Perceptron):
    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.layers[0](x))
        last: Tensor = self.layers[2](x + functional.relu(self.layers[1](x)))
        return last


class Scaled(Perceptron):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


class Cut(Perceptron):
    """Whose first layer has no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.layers[0](x)).detach()
        last: Tensor = self.layers[2](functional.relu(self.layers[1](x)))
        return last


class _Odd(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.relu()

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        return gradient


class StraightThrough(Perceptron):
    """Whose gradient is not that of relu."""

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = _Odd.apply(layer(x))
        last: Tensor = self.layers[-1](x)
        return last


class Trained(Perceptron):
    """Another one in training than in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if self.training else 2 * super().forward(x)


class BySize(Perceptron):
    """Another one on many rows."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if len(x) < 50 else 2 * super().forward(x)


class Swapped(Perceptron):
    """Whose equal layers are used in another order than they stand in."""

    def forward(self, x: Tensor) -> Tensor:
        first, second, third, last = self.layers
        for layer in (first, third, second):
            x = functional.relu(layer(x))
        result: Tensor = last(x)
        return result


WIDTHS = [12, 7, 7, 3]
PERCEPTRONS = {
    "sequence": ModuleModel.of(sequence, (3, 2, 2), 3),
    "functions": ModuleModel.of(Perceptron, (3, 2, 2), 3, widths=WIDTHS),
    "dropout": ModuleModel.of(Perceptron, (12,), 3, widths=WIDTHS, dropout=0.3),
    "linear": ModuleModel.of(linear, (12,), 3),
}
OTHERS = {
    **{
        build.__name__: ModuleModel.of(build, (12,), 3)
        for build in (mixed, with_tanh, without_bias, with_norm)
    },
    **{
        kind.__name__: ModuleModel.of(kind, (12,), 3, widths=WIDTHS)
        for kind in (Residual, Scaled, Cut, StraightThrough, Trained, BySize)
    },
    "Swapped": ModuleModel.of(Swapped, (12,), 3, widths=[12, 7, 7, 7, 3]),
}
RUNS: list[dict[str, Any]] = [
    {"learning_rate": 0.01},
    {"learning_rate": 0.003, "l1": 1e-4, "penalize": "all", "max_norm": 0.5},
    {"learning_rate": 0.01, "l2": 0.001, "weight_decay": 0.01},
    {"learning_rate": 0.001, "l1": 0.001, "l1_update": "proximal"},
]


@pytest.fixture(params=PERCEPTRONS)
def model(request: pytest.FixtureRequest) -> ModuleModel:
    return PERCEPTRONS[request.param]


def pack_of(model: ModuleModel, dtype: torch.dtype, kernels: Kernels, width: int = 4) -> Pack:
    data = samples(model, num_train=NUM_TRAIN, dtype=dtype)
    drops = {"dropout": 0.3} if model.num_draws else {}
    spec = step_spec(config(batch_size=BATCH_SIZE, **drops), model, data)
    return Pack(spec, data, width=width, kernels=kernels)


def runs_of(model: ModuleModel, epochs: int) -> list[Any]:
    return [
        config(
            seed=seed,
            batch_size=BATCH_SIZE,
            epochs=epochs,
            **run,
            **({"dropout": 0.1 + 0.2 * seed} if model.num_draws else {}),
        )
        for seed, run in enumerate(RUNS)
    ]


def test_perceptrons_are_known(model: ModuleModel) -> None:
    assert native_of(model) is not None
    assert model.native("mean_squared_error") is None


@pytest.mark.parametrize("name", OTHERS)
def test_nothing_else_is_taken_for_one(name: str) -> None:
    assert OTHERS[name].native("cross_entropy") is None


def test_they_agree_with_the_plain_loop(
    model: ModuleModel, kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over 100 steps."""
    monkeypatch.setitem(nets.WITH_MASKS, Perceptron, PerceptronWithMasks)
    epochs = epochs_for(100, NUM_TRAIN, BATCH_SIZE)
    pack, runs = pack_of(model, torch.float64, kernels), runs_of(model, epochs)
    for slot, run in enumerate(runs):
        pack.load(slot, run)
    while pack.epochs_done(0) < epochs:
        pack.tick(pack.ticks_to_epoch_end)
    for slot, run in enumerate(runs):
        (metrics,) = pack.epoch_metrics([slot])
        plain = train_plainly(run, model, pack.data)
        loss = metrics[pack.metrics.index("validation_loss")]
        assert loss == pytest.approx(plain.validation_losses[-1], rel=EXACT["rtol"])
        expected = plain.model.state_dict()
        for name, tensor in pack.named(pack.weights(slot)).items():
            assert_close(tensor, expected[name], **EXACT, msg=lambda m, n=name: f"{n} {m}")


def test_they_have_the_bits_of_the_built_in_one(kernels: Kernels) -> None:
    model = ModuleModel.of(Perceptron, (12,), 3, widths=WIDTHS)
    mine = pack_of(model, torch.float32, kernels)
    spec = replace(mine.spec, model=Mlp(12, (7, 7), 3))
    builtin = Pack(spec, mine.data, width=4, kernels=kernels)
    for slot, run in enumerate(runs_of(model, 2)):
        for pack in (mine, builtin):
            pack.load(slot, run)
            pack.weights(slot)  # has its start written
    for its, other in zip(mine._memory.state.values(), builtin._memory.state.values(), strict=True):
        for stretch, its_stretch in zip(other.stretches_KR, its.stretches_KR, strict=True):
            stretch.copy_(its_stretch)
    for pack in (mine, builtin):
        pack.tick(pack.ticks_to_epoch_end)
    assert mine.epoch_metrics(range(4)) == builtin.epoch_metrics(range(4))
    for slot in range(4):
        assert mine.weights(slot).parameters_P.equal(builtin.weights(slot).parameters_P)


def test_neighbours_and_slots_change_no_bit(model: ModuleModel, kernels: Kernels) -> None:
    def alone(run: int) -> Any:
        pack = pack_of(model, torch.float32, kernels)
        pack.load(run, runs_of(model, 2)[run])
        return results(pack, {run: run})

    expected = {run: result for i in range(4) for run, result in alone(i).items()}
    assert all(result["parameters"].isfinite().all() for result in expected.values())
    pack = pack_of(model, torch.float32, kernels)
    for slot in range(4):
        fill(pack, slot, float("nan"))
    for slot, run in enumerate([3, 1, 0, 2]):
        pack.load(slot, runs_of(model, 2)[run])
    assert_same(results(pack, {0: 3, 1: 1, 2: 0, 3: 2}), expected)


def test_lanes_train_them_so_at_once(
    model: ModuleModel, kernels_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is measured or compiled for them."""
    data, runs = samples(model, num_train=NUM_TRAIN, dtype=torch.float32), runs_of(model, 2)
    lanes = Lanes(CPU, LaneOptions(cache=kernels_folder))
    monkeypatch.setattr(lanes._programs, "request", None)
    monkeypatch.setattr(lanes._widths, "best", None)
    for run in runs:
        lanes.add(run.seed, run, model, data)
    events = drain(lanes)
    assert {outcome.state for outcome in outcomes(events).values()} == {"complete"}
    programs = [ProgramIdentity.parse(e.program) for e in events if isinstance(e, Began)]
    expected = {("native", ROOM["cpu"], model.source)}
    assert {(p.form, p.width, p.source) for p in programs} == expected
