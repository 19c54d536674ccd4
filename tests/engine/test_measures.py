"""What is seen of a run's weights and units, against plain torch, and that nothing else shows."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torch.nn import functional

from ridgeline.search.engine import NEAR_ZERO, DeviceData, LaneOptions, Lanes, Mlp, TrainingRun
from ridgeline.search.engine.evaluation import EVALUATION_ROWS
from ridgeline.search.engine.layout import layouts
from ridgeline.search.engine.measures import (
    LEAST_EXPONENT,
    NUM_BINS,
    Measures,
    UnitMeasures,
    WeightHistogram,
    looked_at,
)
from ridgeline.search.engine.models import module_hidden
from ridgeline.search.engine.models.bags import bag_of_tokens
from ridgeline.search.engine.models.base import LINEAR_ZONE, Model
from ridgeline.search.engine.models.convolutional import lenet, resnet
from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.pack import Pack
from tests.engine.lane_runs import drain, outcomes
from tests.engine.models import nets
from tests.engine.plain import PlainMlp, penalised_of, plain_module
from tests.engine.program_checks import CASES
from tests.engine.sets import CPU, blobs, config, samples, shape_for

PROXIMAL = {"optimizer": "sgd", "learning_rate": 0.1, "l1": 0.02, "l1_update": "proximal"}


def finished(
    data: DeviceData, shape: Model, program: dict[str, Any] | None = None, **changes: Any
) -> tuple[Measures, nn.Module]:
    """What is seen of a run's weights, and a plain module that has them, in evaluation mode."""
    run = TrainingRun(config(**changes), shape, data, **(program or {}))
    list(run.epochs())
    outcome = run.outcome()
    assert outcome.measures is not None
    module = plain_module(shape).to(data.dtype)
    module.load_state_dict(outcome.weights, strict=False)
    return outcome.measures, module.eval()


def scores(module: nn.Module, x: Tensor, y: Tensor) -> tuple[float, float]:
    outputs = module(x)
    right = (outputs.argmax(1) == y).double().mean()
    return functional.cross_entropy(outputs, y).item(), right.item()


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ({"hidden": (9, 5)}, {"dropout": 0.3, "epochs": 8}),
        ({"hidden": (9, 5)}, {**PROXIMAL, "epochs": 12}),
        ({"hidden": ()}, {**PROXIMAL, "epochs": 8}),
        ({"hidden": (9,), "activation": "tanh"}, {"l2": 0.01}),
        ({"hidden": (9, 5), "activation": "tanh", "batch_norm": True}, {"patience": 1}),
        ({"hidden": (9,), "batch_norm": True}, {}),
    ],
)
@torch.no_grad()
def test_it_agrees_with_plain_torch(
    shape: dict[str, Any], changes: dict[str, Any], program: dict[str, Any]
) -> None:
    data = blobs(num_train=131)
    seen, module = finished(data, shape_for(data, **shape), program, **changes)
    assert isinstance(module, PlainMlp)
    for name, layer in seen.layers.items():
        weights = module.get_parameter(name)
        assert layer.num_weights == weights.numel()
        assert layer.weight_norm == pytest.approx(weights.norm().item(), rel=1e-12)
        assert layer.zero_share == (weights == 0).double().mean().item()
        assert layer.near_zero_share == (weights.abs() < NEAR_ZERO).double().mean().item()
    assert [*seen.layers] == [f"layers.{i}.weight" for i in range(len(module.layers))]

    kept = [column.abs().max().item() >= NEAR_ZERO for column in module.layers[0].weight.t()]
    assert seen.inputs is not None
    assert asdict(seen.inputs) == {"num_inputs": 6, "num_kept": sum(kept)}

    x = data.validation.x
    for i, layer in enumerate(module.layers[:-1]):
        x = layer(x)
        if len(module.norms):
            x = module.norms[i](x)
        x = module.activation(x)
        units = seen.units[f"layers.{i}"]
        assert units.num_units == x.shape[1]
        if module.activation is torch.relu:
            assert (units.num_dead, units.linear_share) == ((x == 0).all(0).sum().item(), None)
        else:
            linear = (torch.atanh(x).abs() < 0.5).double().mean().item()
            assert (units.num_dead, units.linear_share) == (None, pytest.approx(linear, abs=1e-12))
    assert len(seen.units) == len(module.layers) - 1

    # 57 of the 131 training rows, at even distances.
    rows = [i * 131 // 57 for i in range(57)]
    loss, accuracy = scores(module, data.train.x[rows], data.train.y[rows])
    on_validation = scores(module, data.validation.x, data.validation.y)
    assert seen.generalisation_gap == pytest.approx(
        {"loss": on_validation[0] - loss, "accuracy": accuracy - on_validation[1]}, abs=1e-10
    )


def test_weights_that_are_zero_and_units_that_are_dead_are_counted() -> None:
    model = Mlp(4, (3,), 2)
    tanh = replace(model, activation="tanh")
    tensors = {
        "layers.0.weight": torch.tensor(
            [[1.0, 0.0, 5e-4, 0.0], [-1.0, 0.0, -9e-4, 2e-3], [2.0, 0.0, 0.0, 0.0]]
        ),
        "layers.0.bias": torch.tensor([0.25, -1.0, -20.0]),
        "layers.1.weight": torch.ones(2, 3),
        "layers.1.bias": torch.zeros(2),
    }
    row = torch.zeros(1, layouts(model)[0].row_size)
    for name, view in layouts(model)[0].views(row).items():
        view[0] = tensors[name]
    # More rows than are looked at at once; only the last one wakes the second unit.
    x = torch.zeros(EVALUATION_ROWS + 3, 4)
    x[:, 0] = 0.125
    x[-1, 0] = -2.0
    ((inputs, layers, units, histogram),) = looked_at(model, row, torch.zeros(1, 0), x)
    assert inputs is not None
    assert asdict(inputs) == {"num_inputs": 4, "num_kept": 2}
    first = layers["layers.0.weight"]
    assert (first.zero_share, first.near_zero_share) == (6 / 12, 8 / 12)
    assert layers["layers.1.weight"].weight_norm == pytest.approx(6**0.5)
    assert units["layers.0"].num_dead == 1
    assert histogram.num_zero == 6
    # 5e-4 and 9e-4 are in the bin that ends at 2^-10, 2e-3 in the next but one.
    assert bins_of(histogram) == {-11: 2, -9: 1, 0: 8, 1: 1}
    # z is 3/8, -9/8 and -19.75, but for the last row: -7/4, 1 and -24.
    ((_, _, units, _),) = looked_at(tanh, row, torch.zeros(1, 0), x)
    assert units["layers.0"].linear_share == (len(x) - 1) / (3 * len(x))
    assert pytest.approx(0.46211715726) == LINEAR_ZONE


def bins_of(histogram: WeightHistogram) -> dict[int, int]:
    """The bins that are not empty, by the exponent of 2 at which they begin."""
    first = LEAST_EXPONENT - 1
    return {first + i: count for i, count in enumerate(histogram.counts) if count}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_weight_is_in_one_bin_whatever_its_size(dtype: torch.dtype) -> None:
    magnitudes = [0.0, 2.0**-60, 2.0**-21, 2.0**-20, 2.0**-20 * 1.99, 0.5, 0.75, 8.0, 15.9, 16, 1e9]
    model = Mlp(len(magnitudes), (), 2)
    row = torch.zeros(1, layouts(model)[0].row_size, dtype=dtype)
    weights = torch.tensor(magnitudes, dtype=dtype)
    layouts(model)[0].views(row)["layers.0.weight"][0] = torch.stack([weights, -weights])
    x = torch.zeros(3, len(magnitudes), dtype=dtype)
    histogram = looked_at(model, row, torch.zeros(1, 0, dtype=dtype), x)[0].weight_histogram
    assert histogram.num_zero == 2
    assert bins_of(histogram) == {-21: 4, -20: 4, -1: 4, 3: 4, 4: 4}
    assert len(histogram.counts) == NUM_BINS == 26


@pytest.mark.parametrize("num_train", [30, 57])
def test_a_small_training_part_is_all_of_the_sample(num_train: int) -> None:
    data = blobs(num_train=num_train)
    assert data.train_sample is data.train


@torch.no_grad()
def test_the_gap_of_numbers_is_in_their_unit() -> None:
    data = blobs()
    numbers = replace(
        data,
        targets=replace(data.targets, kind="numbers", count=1, low=0.0, high=2.0, unit=3.0),
        **{
            part: replace(split, y=split.y.to(data.dtype)[:, None])
            for part in ("train", "validation", "test")
            if (split := getattr(data, part))
        },
    )
    seen, module = finished(
        numbers,
        Mlp(6, (5,), 1),
        loss="mean_squared_error",
        monitor="validation_rmse",
        direction="minimize",
    )
    rows = [i * 100 // 57 for i in range(57)]
    off = [
        (module(split.x) - split.y)
        for split in (
            numbers.validation,
            replace(numbers.train, x=numbers.train.x[rows], y=numbers.train.y[rows]),
        )
    ]
    rmse = [one.square().mean().sqrt().item() * 3 for one in off]
    gaps = seen.generalisation_gap
    assert gaps["rmse"] == pytest.approx(rmse[0] - rmse[1], abs=1e-10)
    assert gaps.keys() == {"loss", "mae", "rmse", "r2"}


@torch.no_grad()
def test_the_gap_is_of_what_a_run_is_judged_by_too(program: dict[str, Any]) -> None:
    data = blobs()
    seen, module = finished(
        data, shape_for(data), program, monitor="validation_macro_f1", direction="maximize"
    )
    rows = [i * 100 // 57 for i in range(57)]
    train, validation = (
        f1_score(y, module(x).argmax(1), average="macro")
        for x, y in (
            (data.train.x[rows], data.train.y[rows]),
            (data.validation.x, data.validation.y),
        )
    )
    gaps = seen.generalisation_gap
    assert gaps.keys() == {"loss", "accuracy", "macro_f1"}
    assert gaps["macro_f1"] == pytest.approx(train - validation, abs=1e-12)


@pytest.mark.parametrize(
    "model",
    [
        ModuleModel.of(nets.convolutional, (2, 6, 6), 3),
        ModuleModel.of(nets.batch_norm_1d, (5,), 3),
    ],
)
def test_of_a_module_its_weights_are_seen(model: ModuleModel) -> None:
    seen, module = finished(samples(model, num_train=90, dtype=torch.float64), model)
    named = {id(parameter): name for name, parameter in module.named_parameters()}
    assert seen.layers.keys() == {named[id(weight)] for weight in penalised_of(module)}
    for name, layer in seen.layers.items():
        norm = module.get_parameter(name).norm().item()
        assert layer.weight_norm == pytest.approx(norm, rel=1e-12)
    assert seen.inputs is None
    assert seen.generalisation_gap.keys() == {"loss", "accuracy"}


UNITS: dict[str, tuple[ModuleModel, list[str]]] = {
    "convolutional": (ModuleModel.of(nets.convolutional, (2, 6, 6), 3), ["1", "4"]),
    "norm": (ModuleModel.of(nets.batch_norm_2d, (2, 6, 6), 3), ["2"]),
    "lenet": (
        ModuleModel.of(
            lenet,
            (1, 8, 8),
            3,
            image=[1, 8, 8],
            outputs=3,
            channels=[4, 5],
            blocks=2,
            hidden=[6],
            norm="none",
            activation="relu",
            pooling="average",
            spatial_dropout=True,
        ),
        ["1", "3", "7", "9", "15"],
    ),
    "resnet": (
        ModuleModel.of(
            resnet,
            (1, 8, 8),
            3,
            image=[1, 8, 8],
            outputs=3,
            channels=[4, 4],
            blocks=1,
            hidden=[],
            norm="group",
            activation="tanh",
            pooling="max",
            spatial_dropout=False,
        ),
        ["2", "3.inner.2", "3.activation", "4.inner.2", "4.activation"],
    ),
    "text": (
        ModuleModel.of(
            bag_of_tokens,
            (5,),
            3,
            11,
            vocabulary=11,
            padding=0,
            outputs=3,
            embedding=4,
            hidden=[6, 5],
            activation="relu",
            pooling="mean",
        ),
        ["3", "6"],
    ),
}


@pytest.mark.parametrize("name", UNITS)
def test_of_a_module_the_units_of_its_activations_are_seen(name: str) -> None:
    model, expected = UNITS[name]
    data = samples(model, num_train=90, dtype=torch.float64)
    if model.num_ids is not None:
        ids = {
            part: replace(split, x=(5 * split.x.abs()).long() % model.num_ids)
            for part in ("train", "validation", "test")
            if (split := getattr(data, part))
        }
        data = replace(data, **ids)
    seen, module = finished(data, model, dropout=0.3)
    given: dict[str, Tensor] = {}
    for place, layer in module.named_modules():
        if isinstance(layer, nn.ReLU | nn.Tanh):
            layer.register_forward_hook(
                lambda _, args, y, place=place: given.update({place: y.clone()})
            )
    with torch.no_grad():
        module(data.validation.x)
    assert [*seen.units] == [*given] == expected
    for place, values in given.items():
        units, by_unit = seen.units[place], values.transpose(0, 1).flatten(1)
        assert units.num_units == len(by_unit)
        if isinstance(module.get_submodule(place), nn.ReLU):
            num_dead = int((by_unit == 0).all(1).sum())
            assert (units.num_dead, units.linear_share) == (num_dead, None)
        else:
            linear = (torch.atanh(by_unit).abs() < 0.5).double().mean().item()
            assert (units.num_dead, units.linear_share) == (None, pytest.approx(linear, abs=1e-12))


class Calls(nn.Module):
    """Activations by functions, in a loop, of an output, and of what no layer has given."""

    def __init__(self, num_steps: int = 2) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.deeper = nn.Linear(4, 4)
        self.last = nn.Linear(4, 3)
        self.squash = nn.Sigmoid()
        self.num_steps = num_steps

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x), inplace=True)
        x = torch.sigmoid(self.deeper(x + 1))
        for _ in range(self.num_steps):
            x = self.deeper(x).tanh()
        tokens = self.deeper(x[:, None, :].repeat(1, 3, 1)).relu()
        odd = torch.stack([tokens, tokens], dim=1).relu()
        return self.squash(self.last(x + odd.mean(dim=(1, 2))))


def units_of(model: ModuleModel, x: Tensor) -> dict[str, UnitMeasures]:
    row = torch.zeros(1, layouts(model)[0].row_size, dtype=x.dtype)
    for name, view in layouts(model)[0].views(row).items():
        view[0] = model.initial([3])[0][name]
    return looked_at(model, row, torch.zeros(1, 0, dtype=x.dtype), x)[0].units


def test_activations_are_seen_wherever_they_are_called() -> None:
    model = ModuleModel.of(Calls, (5,), 3)
    x = torch.randn(EVALUATION_ROWS + 7, 5, generator=torch.Generator().manual_seed(1))
    units = units_of(model, x)
    # Not the second relu of a shape that no layer gave, nor the sigmoid of the outputs.
    assert [*units] == ["relu", "relu:2", "sigmoid", "tanh", "tanh:2"]
    assert {one.num_units for one in units.values()} == {4}
    module = Calls().eval()
    module.load_state_dict({**model.initial([3])[0]})
    with torch.no_grad():
        first = functional.relu(module.first(x))
        second = torch.sigmoid(module.deeper(first + 1))
    assert units["relu"].num_dead == int((first == 0).all(0).sum())
    linear = ((second - 0.5).abs() < 0.5 * math.tanh(0.5)).double().mean().item()
    assert units["sigmoid"].linear_share == pytest.approx(linear, abs=1e-12)
    assert 0 < linear < 1
    # Twenty steps would be twenty layers.
    steps = units_of(ModuleModel.of(Calls, (5,), 3, num_steps=20), x)
    assert [*steps] == ["relu", "relu:2", "sigmoid"]


def test_of_a_module_that_cannot_be_batched_no_units_are_told() -> None:
    model = ModuleModel.of(nets.Noisy, (5,), 3)
    assert model.survey.obstacle is not None
    assert model.hidden_of_one({}, {}, torch.zeros(2, 5)) == {}


def test_a_module_that_cannot_be_watched_costs_no_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory, say")

    monkeypatch.setattr(module_hidden, "call", fail)
    model = ModuleModel.of(Calls, (5,), 3)
    assert units_of(model, torch.zeros(2, 5)) == {}
    assert "the units of Calls are not told: out of memory, say" in caplog.text


def test_the_inputs_of_an_embedding_are_its_ids() -> None:
    bag = {"vocabulary": 11, "padding": 0, "outputs": 3, "embedding": 4, "hidden": []}
    model = ModuleModel.of(bag_of_tokens, (5,), 3, 11, **bag, activation="relu", pooling="mean")
    dimensions = {name: one.input_dimension for name, one in model.parameters().items()}
    assert [name for name, dimension in dimensions.items() if dimension == 0] == ["0.weight"]
    assert {*dimensions.values()} == {0, None}
    row = torch.zeros(1, layouts(model)[0].row_size)
    layouts(model)[0].views(row)["0.weight"][0, 3:5] = 0.5
    ((inputs, *_),) = looked_at(model, row, torch.zeros(1, 0), torch.zeros(2, 5, dtype=torch.int64))
    assert inputs is not None
    assert asdict(inputs) == {"num_inputs": 11, "num_kept": 2}


@pytest.mark.parametrize("name", ["adam", "sgd-norm"])
def test_looking_changes_no_bit_and_neighbours_change_nothing_of_what_is_seen(
    name: str, program: dict[str, Any]
) -> None:
    case, width = CASES[name], 4

    def trained(order: list[int], at_once: int) -> tuple[dict[int, Measures], dict[int, Any]]:
        pack = Pack(case.spec, case.data, width=width, **program)
        for slot, run in enumerate(order):
            pack.load(slot, case.configs[run])
        seen = {}
        for _ in range(2):
            pack.tick(pack.ticks_to_epoch_end)
            metrics = pack.epoch_metrics(range(width))
            told = [dict(zip(pack.metrics, its, strict=True)) for its in metrics]
            configs = [case.configs[run] for run in order]
            for start in range(0, width, at_once) if at_once else ():
                slots = slice(start, start + at_once)
                weights = [pack.weights(slot) for slot in range(width)[slots]]
                measured = pack.measured(weights, configs[slots], told[slots])
                seen |= dict(zip(order[slots], measured, strict=True))
        return seen, {run: pack.state(slot).tensors for slot, run in enumerate(order)}

    seen, states = trained([0, 1, 2, 3], at_once=1)
    others, others_states = trained([3, 0, 2, 1], at_once=3)
    _, unseen_states = trained([0, 1, 2, 3], at_once=0)
    assert seen == others
    for run, state in states.items():
        for key, tensor in state.items():
            assert torch.equal(tensor, others_states[run][key])
            assert torch.equal(tensor, unseen_states[run][key])


def test_only_complete_runs_are_looked_at() -> None:
    data = blobs(num_train=50, dtype=torch.float32)
    shape = shape_for(data)
    lanes = Lanes(CPU, LaneOptions(width=2))
    lanes.add("whole", config(), shape, data)
    lanes.add("wild", config(optimizer="sgd", learning_rate=1e30, epochs=9), shape, data)
    ended = outcomes(drain(lanes))
    assert ended["whole"].measures is not None
    assert (ended["wild"].state, ended["wild"].measures) == ("diverged", None)
    run = TrainingRun(config(), shape, data)
    next(run.epochs())
    stopped = run.outcome()
    assert (stopped.state, stopped.measures) == ("stopped", None)


def test_a_pass_is_traced_once_and_keeps_nothing_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = UNITS["convolutional"]
    x = samples(model, num_train=4, dtype=torch.float64).validation.x
    num_traced = 0
    trace = module_hidden.traced

    def counting(*args: Any) -> Any:
        nonlocal num_traced
        num_traced += 1
        return trace(*args)

    monkeypatch.setattr(module_hidden, "traced", counting)
    module_hidden._watched.cache_clear()
    starts = model.initial([0, 1])
    runs = [{name: its.double() for name, its in start.items()} for start in starts]
    one, other, again = (model.hidden_of_one(runs[i], {}, x) for i in (0, 1, 0))
    assert num_traced == 1
    assert one
    for name, units in one.items():
        assert torch.equal(units.seen_H, again[name].seen_H)
        assert not torch.equal(units.seen_H, other[name].seen_H)
