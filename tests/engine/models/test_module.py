"""Modules as people write them, in packs: against plain loops, and what is said of the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from ridgeline.search.engine import (
    DeviceData,
    LaneOptions,
    Lanes,
    Pack,
    ProgramIdentity,
    RunConfig,
)
from ridgeline.search.engine.admission import prior_width
from ridgeline.search.engine.compiled import FixedSizes, Job
from ridgeline.search.engine.layout import layouts
from ridgeline.search.engine.models import module
from ridgeline.search.engine.models.bags import bag_of_tokens
from ridgeline.search.engine.models.convolutional import lenet, resnet
from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.models.module_packing import unpackable
from ridgeline.search.engine.models.module_substitutes import Substitutes
from tests.engine.lane_runs import drain, outcomes
from tests.engine.models import nets
from tests.engine.plain import epochs_for, train_plainly
from tests.engine.sets import CPU, config, step_spec

VECTOR, IMAGE, TOKENS = (5,), (2, 6, 6), (4,)
NUM_IDS = 11
NUM_STEPS = 200
NUM_TRAIN, BATCH_SIZE = 49, 16  # whose last batch is one row
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def model(factory: Callable[..., Any], shape: tuple[int, ...], **settings: Any) -> ModuleModel:
    return ModuleModel.of(factory, shape, 3, NUM_IDS if shape == TOKENS else None, **settings)


MODELS = {
    "max pooling": model(nets.convolutional, IMAGE, pool="max"),
    "overlapping max pooling": model(nets.convolutional, IMAGE, pool="overlapping"),
    "average pooling": model(nets.convolutional, IMAGE, pool="average"),
    "adaptive pooling": model(nets.convolutional, IMAGE, pool="adaptive"),
    "adaptive max pooling": model(nets.convolutional, IMAGE, pool="adaptive_max"),
    "batch norm 1-d": model(nets.batch_norm_1d, VECTOR),
    "batch norm 1-d, no scale": model(nets.batch_norm_1d, VECTOR, affine=False, momentum=0.3),
    "batch norm 2-d": model(nets.batch_norm_2d, IMAGE),
    "layer norm": model(nets.layer_norm, VECTOR),
    "layer norm of images": model(nets.layer_norm_of_images, IMAGE),
    "group norm": model(nets.group_norm, IMAGE),
    "batch norm and layer norm alone": model(nets.norms_alone, (3,)),
    "bag of means": model(nets.embedding_bag, TOKENS),
    "bag of means, no padding": model(nets.embedding_bag, TOKENS, padding_idx=None),
    "bag of sums": model(nets.embedding_bag, TOKENS, mode="sum", padding_idx=-1),
    "bag of maxima": model(nets.embedding_bag, TOKENS, mode="max"),
    "residual": model(nets.Residual, VECTOR),
    "residual net": model(nets.residual_net, IMAGE),
    "dropout": model(nets.Drops, VECTOR),
    "spatial dropout": model(nets.SpatialDrops, IMAGE),
    "lenet with dropout": model(lenet, IMAGE, **nets.LENET),
    "lenet with batch norm": model(lenet, IMAGE, **{**nets.LENET, "norm": "batch"}),
    "resnet with dropout": model(resnet, IMAGE, **nets.RESNET),
    "resnet with layer norm": model(resnet, IMAGE, **{**nets.RESNET, "norm": "layer"}),
    "resnet with batch norm": model(
        resnet, IMAGE, **{**nets.RESNET, "norm": "batch", "pooling": "max", "activation": "relu"}
    ),
    "bag of tokens with dropout": model(bag_of_tokens, TOKENS, **nets.BAG),
    "bag of tokens, summed": model(bag_of_tokens, TOKENS, **{**nets.BAG, "pooling": "sum"}),
    "tied": model(nets.Tied, (3,)),
    "buffers": model(nets.WithBuffers, VECTOR),
    "attention": model(nets.Attention, TOKENS),
    "recurrent": model(nets.Recurrent, TOKENS),
    "branches": model(nets.Branches, VECTOR),
    "rows that depend on each other": model(nets.Centres, VECTOR),
}

CONFIGS = [
    config(batch_size=BATCH_SIZE, optimizer="sgd", learning_rate=0.005, momentum=0.9, seed=1),
    config(batch_size=BATCH_SIZE, optimizer="sgd", learning_rate=0.02, l2=0.01, seed=2),
    config(batch_size=BATCH_SIZE, optimizer="sgd", learning_rate=0.01, l1=0.003, seed=3),
]


def data_for(model: ModuleModel, dtype: torch.dtype = torch.float64) -> DeviceData:
    generator = np.random.default_rng(0)

    def part(num_samples: int) -> tuple[Any, Any]:
        shape = (num_samples, *model.shape)
        x: Any = generator.normal(size=shape)
        if model.num_ids is not None:
            x = generator.integers(0, model.num_ids, size=shape)
        return x, generator.integers(0, 3, num_samples)

    return DeviceData.from_arrays(
        part(NUM_TRAIN), part(13), part(5), num_classes=3, device=CPU, dtype=dtype,
        are_ids=model.takes_ids,
    )  # fmt: skip


def trained(
    model: ModuleModel, configs: list[RunConfig], data: DeviceData, width: int
) -> list[dict[str, torch.Tensor]]:
    """Weights and statistics of runs of the same length, from one pack."""
    pack = Pack(step_spec(configs[0], model, data), data, width=width)
    for slot, run in enumerate(configs):
        pack.load(slot, run)
    while pack.epochs_done(0) < configs[0].epochs:
        pack.tick()
    results = []
    for slot in range(len(configs)):
        state = pack.state(slot).tensors
        rows = (state["parameters"], state["statistics"])
        results.append(
            {
                name: view[0]
                for layout, row in zip(layouts(model), rows, strict=True)
                for name, view in layout.views(row[None]).items()
            }
        )
    return results


@pytest.mark.parametrize("name", MODELS)
def test_a_pack_agrees_with_a_plain_loop(name: str) -> None:
    model, data = MODELS[name], data_for(MODELS[name])
    epochs = epochs_for(NUM_STEPS, NUM_TRAIN, BATCH_SIZE)
    changes: dict[str, Any] = {"epochs": epochs}
    if "batch norm" in name or name == "residual net":
        # torch refuses a batch of one row, unless it has several numbers a channel.
        changes["batch_size"] = 15
    runs = [RunConfig(**{**c.as_dict(), **changes}) for c in CONFIGS]
    if "dropout" in name:
        rates = (0.3, 0.1, 0.6)
        runs = [
            RunConfig(**{**c.as_dict(), "dropout": p}) for c, p in zip(runs, rates, strict=True)
        ]
    results = trained(model, runs, data, width=3)
    for run, result in zip(runs, results, strict=True):
        plain = train_plainly(run, model, data).model
        expected = {**dict(plain.named_parameters()), **dict(plain.named_buffers())}
        for name, tensor in result.items():
            assert_close(tensor, expected[name].detach(), **EXACT, msg=lambda m, n=name: n + m)


WITHOUT_GRADIENT = {"0.bias", "3.inner.0.bias", "3.inner.3.bias"}
"""Of the residual network: a norm takes a channel's mean away, so that these change nothing.  Their
gradients are rounding errors, which Adam divides by little more than 1e-8.  In the plain loop the
last digit of an initial weight changes them as much."""


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        ("adam", "max pooling"),
        ("adamw", "layer norm"),
        ("adam", "residual"),
        ("adam", "resnet with dropout"),
    ],
)
def test_adam_agrees_with_torchs(optimizer: str, name: str) -> None:
    model, data = MODELS[name], data_for(MODELS[name])
    epochs = epochs_for(NUM_STEPS, NUM_TRAIN, BATCH_SIZE)
    run = config(
        batch_size=BATCH_SIZE, optimizer=optimizer, epochs=epochs, weight_decay=0.05, l1=0.001
    )
    (result,) = trained(model, [run], data, width=2)
    expected = dict(train_plainly(run, model, data).model.named_parameters())
    for name, tensor in result.items():
        exact = {"rtol": 0.0, "atol": 1e-8} if name in WITHOUT_GRADIENT else EXACT
        assert_close(tensor, expected[name].detach(), **exact, msg=lambda m, n=name: n + m)


@pytest.mark.parametrize("name", ["batch norm 1-d", "batch norm 2-d"])
def test_a_batch_of_one_row_trains_what_it_can(name: str) -> None:
    model = MODELS[name]
    data = data_for(model)
    runs = [config(batch_size=1, epochs=1, optimizer="sgd", learning_rate=0.1)]
    (result,) = trained(model, runs, data, width=1)
    assert all(tensor.isfinite().all() for tensor in result.values())
    start = model.initial([runs[0].seed])[0]
    is_changed = {n: not result[n].equal(start[n].double()) for n in result}
    if name == "batch norm 1-d":
        # One number a channel: no variance, so the statistics stay, and only what comes after the
        # normalised value of 0 is trained; here not even the shift, since a ReLU follows.
        assert not is_changed["1.running_mean"]
        assert not is_changed["1.running_var"]
        assert not is_changed["0.weight"]
        assert is_changed["3.bias"]
    else:
        assert is_changed["1.running_var"]
        assert is_changed["0.weight"]


@pytest.mark.parametrize("name", ["dropout", "residual net", "bag of means", "layer norm"])
def test_odd_shapes_pack_to_the_bit(name: str) -> None:
    for width, num_rows in ((3, 16), (7, 32)):
        assert unpackable(MODELS[name], width, num_rows, CPU, torch.float32) is None


def test_what_does_not_pack_to_the_bit_is_taken_slot_by_slot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, data = MODELS["residual"], data_for(MODELS["residual"], torch.float32)
    alone = [trained(model, [run], data, width=1)[0] for run in CONFIGS]
    monkeypatch.setattr(
        "ridgeline.search.engine.models.module_packing.unpackable", lambda *_: "for a test"
    )
    together = trained(model, CONFIGS, data, width=4)
    for one, other in zip(alone, together, strict=True):
        for name in one:
            assert_close(one[name], other[name], rtol=1e-4, atol=1e-6)


class MixesSlots(torch.autograd.Function):
    """Gives every slot of a batch the sum over all of them: no slot is alone."""

    generate_vmap_rule = False

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return gradient

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: torch.Tensor) -> Any:
        return x + x.sum(in_dims[0], keepdim=True), in_dims[0]


class Mixes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(MixesSlots.apply(x))  # type: ignore[no-untyped-call,no-any-return]


def test_a_trial_finds_slots_that_see_each_other() -> None:
    reason = unpackable(model(Mixes, VECTOR), 4, 16, CPU, torch.float64)
    assert reason is not None
    assert reason.startswith("Mixes: a slot's last digits in training change when")


@pytest.mark.parametrize(
    ("factory", "settings", "words"),
    [
        (nets.Branches, {}, ["Branches: its own forward reads a value", "_local_scalar_dense"]),
        (nets.Noisy, {}, ["Noisy: noise (Noise) draws random numbers of its own", "rand_like"]),
        (nets.SkipsLayers, {}, ["SkipsLayers: it draws random numbers from Python or numpy"]),
        (nets.Centres, {}, ["Centres: its outputs depend on the other rows"]),
        (nets.Counts, {}, ["Counts: it changes count, a buffer of whole numbers"]),
        (nets.batch_norm_1d, {"momentum": None}, ["Sequential: 1 (BatchNorm1d) reads a value"]),
    ],
)
def test_what_stands_in_the_way_is_named(
    factory: Callable[..., nn.Module], settings: dict[str, Any], words: list[str]
) -> None:
    unbatchable = model(factory, VECTOR, **settings)
    reason = unpackable(unbatchable, 4, 16, CPU, torch.float32)
    assert reason is not None
    assert all(word in reason for word in words), reason
    assert "\n" not in reason


@pytest.mark.parametrize("factory", [nets.Noisy, nets.Branches, nets.Centres, nets.Counts])
def test_what_cannot_be_batched_keeps_to_the_contract(factory: Callable[..., nn.Module]) -> None:
    unbatchable = model(factory, VECTOR)
    data = data_for(unbatchable, torch.float32)
    alone = [trained(unbatchable, [run], data, width=4)[0] for run in CONFIGS]
    torch.rand(3)  # what others draw does not matter
    together = trained(unbatchable, CONFIGS[::-1], data, width=4)
    for one, other in zip(alone, together[::-1], strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (nets.lazy, "1.weight has no size yet"),
        (nets.wrong_shape, "Linear must give 3 outputs a row"),
        (nets.frozen, "no parameters to train"),
        (nets.no_module, "must give an nn.Module, not 'a module'"),
    ],
)
def test_what_is_no_model_is_refused(factory: Callable[..., Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        _ = model(factory, VECTOR).survey


def test_the_function_must_be_importable() -> None:
    with pytest.raises(ValueError, match="must stand at the top of a module"):
        model(lambda: nn.Linear(5, 3), VECTOR)
    with pytest.raises(ValueError, match="plain JSON data"):
        model(nets.batch_norm_1d, VECTOR, momentum=object())
    with pytest.raises(ValueError, match="nowhere:net cannot be imported"):
        _ = ModuleModel("nowhere:net", "{}", VECTOR, 3).survey


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other, again = MODELS["buffers"].initial([1, 2, 1])
    assert torch.equal(torch.get_rng_state(), before)
    assert one.keys() == {
        "last.weight", "last.bias", "frozen.weight", "frozen.bias", "features", "average",
    }  # fmt: skip
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["features"], other["features"])
    with torch.random.fork_rng():
        torch.manual_seed(1)
        expected = nets.WithBuffers()
    assert torch.equal(one["last.weight"], expected.last.weight)
    assert torch.equal(one["features"], expected.features)


def test_weights_are_penalised_and_norms_are_not() -> None:
    parameters = MODELS["layer norm of images"].parameters()
    penalised = {name for name, parameter in parameters.items() if parameter.is_penalised}
    assert penalised == {"1.weight"}
    assert parameters["0.weight"].shape == IMAGE
    assert "frozen.weight" in MODELS["buffers"].statistics()


def test_lanes_train_it_and_want_a_program_of_its_width(tmp_path: Path) -> None:
    model, data = MODELS["batch norm 1-d"], data_for(MODELS["batch norm 1-d"], torch.float32)
    lanes = Lanes(CPU, LaneOptions(width=2, compile=True, cache=tmp_path))
    for run in CONFIGS:
        lanes.add(run.seed, run, model, data, keep_weights=True)
    (lane,) = lanes._lanes.values()
    assert lane.wants_program
    assert lane.job.sizes == FixedSizes(2, BATCH_SIZE, evaluation_rows=16, evaluation_slots=2)
    ended = outcomes(drain(lanes))
    assert {outcome.state for outcome in ended.values()} == {"complete"}
    assert ended[1].weights["1.running_mean"].any()


def test_dropout_of_probability_0_draws_nothing() -> None:
    assert model(nets.Drops, VECTOR).num_draws == 8 + 6 + 6
    assert model(nets.Drops, VECTOR, dropout=0).num_draws == 0
    assert MODELS["attention"].num_draws == 0


def test_products_are_counted() -> None:
    residual = MODELS["residual"]
    assert residual.forward_flops(10) == 2 * 10 * (5 * 8 + 8 * 8 + 8 * 3)
    assert math.prod(VECTOR) < residual.numbers_per_row < 1000


def test_what_cannot_gain_by_company_has_packs_of_one_slot() -> None:
    convolves, dense, branches = (
        MODELS[name] for name in ("max pooling", "layer norm", "branches")
    )
    assert (convolves.packs("cpu"), convolves.packs("cuda")) == (False, True)
    assert (dense.packs("cpu"), dense.packs("cuda")) == (True, True)
    assert (branches.packs("cpu"), branches.packs("cuda")) == (False, False)
    for model in (convolves, branches):
        assert prior_width(step_spec(CONFIGS[0], model, data_for(model)), CPU) == 1
    assert not branches.compiles


class Views(nn.Module):
    """Flattens as many people do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(2, 4, 3), nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.conv(x))
        return self.last(x.view(x.size(0), -1))


def test_a_view_of_images_is_taken_as_it_is_written() -> None:
    """Though the channels lie last in memory while one slot is computed."""
    views = model(Views, IMAGE)
    assert views.survey.obstacle is None
    data = data_for(views)
    run = config(batch_size=BATCH_SIZE, epochs=2)
    (result,) = trained(views, [run], data, width=1)
    for name, tensor in train_plainly(run, views, data).model.named_parameters():
        assert_close(result[name], tensor.detach(), **EXACT)


def test_an_edited_package_is_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = MODELS["layer norm"]
    data = data_for(dense)
    spec = step_spec(CONFIGS[0], dense, data)
    before = Pack(spec, data, width=2).program, Job.of(spec, data, 1, 2).name
    assert before[0].source == dense.source != ""
    assert ProgramIdentity.parse(str(before[0])) == before[0]
    monkeypatch.setattr(module, "package_digest", lambda _: "edited")
    after = Pack(spec, data, width=2).program, Job.of(spec, data, 1, 2).name
    assert after[0] != before[0]
    assert after[1] != before[1]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("shape", "kernel"),
    [((4, 6, 8, 8), 2), ((4, 6, 9, 7), (3, 2)), ((2, 1, 5, 5), 2), ((2, 3, 4, 4), [2, 1])],
)
def test_max_pooling_is_torchs_to_the_bit(
    shape: tuple[int, ...], kernel: Any, memory_format: torch.memory_format
) -> None:
    """With many equal numbers in a window."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-3, 4, shape, generator=generator).double()
    x = x.contiguous(memory_format=memory_format)
    mine, theirs = (x.clone().requires_grad_() for _ in range(2))
    expected = functional.max_pool2d(theirs, kernel)
    with Substitutes(torch.tensor(4.0), None, None):
        y = functional.max_pool2d(mine, kernel)
    assert "_MaxPool" in type(y.grad_fn).__name__
    gradient = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    y.backward(gradient)
    expected.backward(gradient)
    assert mine.grad is not None
    assert theirs.grad is not None
    assert torch.equal(y, expected)
    assert torch.equal(mine.grad, theirs.grad)
