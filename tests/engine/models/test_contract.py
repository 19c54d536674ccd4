"""What must hold for every model: a new one is added to CASES, and its plain form to `plain`."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from ridgeline.search.engine import DeviceData, Mlp, Pack, TrainingRun
from ridgeline.search.engine.batch import Batches
from ridgeline.search.engine.compiled import step_inputs
from ridgeline.search.engine.layout import ParameterLayout, StatisticsLayout, layouts
from ridgeline.search.engine.losses import LOSSES
from ridgeline.search.engine.memory import bytes_per_slot
from ridgeline.search.engine.models.base import Model, Rows
from ridgeline.search.engine.models.convolutional import lenet
from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.models.registry import MODELS, model_from_dict
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.spec import StepSpec
from ridgeline.search.engine.step import TracedStep
from tests.engine.models import nets
from tests.engine.models.toy import Toy
from tests.engine.plain import penalised_of, plain_module, train_plainly
from tests.engine.sets import CPU, config, fill, samples, step_spec

CASES: dict[str, Model] = {
    "mlp": Mlp(13, (33, 7), 3),
    "mlp-deep-tanh": Mlp(5, (8, 7, 5), 4, activation="tanh"),
    "mlp-norm": Mlp(13, (33, 7), 3, batch_norm=True),
    "mlp-norm-tanh": Mlp(6, (9,), 10, activation="tanh", batch_norm=True),
    "mlp-softmax": Mlp(11, (), 3),
    "toy": Toy((1, 3, 5), 3),
    "module-drops": ModuleModel.of(nets.Drops, (5,), 3),
    "module-convolutions": ModuleModel.of(nets.SpatialDrops, (2, 6, 6), 3),
    "module-norms": ModuleModel.of(nets.batch_norm_1d, (5,), 3),
    "module-branches": ModuleModel.of(nets.Branches, (5,), 3),
    "lenet": ModuleModel.of(lenet, (2, 6, 6), 3, **nets.LENET),
}
K, B = 4, 8
EXACT = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Model:
    monkeypatch.setitem(MODELS, Toy.kind, Toy)
    return CASES[request.param]


class Stack:
    """A model of K slots with random parameters, and a batch whose last rows do not count."""

    def __init__(self, model: Model, *, drops: bool) -> None:
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.model = model
        layout, statistics_layout = ParameterLayout(model), StatisticsLayout(model)
        rows = layout.initial_rows(range(K), CPU, torch.float64)
        self.parameters = layout.views(rows)
        for view in self.parameters.values():
            view.add_(0.1 * random(*view.shape))
        self.gradients = layout.views(torch.full_like(rows, 7.0))
        statistics = statistics_layout.initial_rows(range(K), CPU, torch.float64)
        self.statistics = statistics_layout.views(statistics)
        self.num_valid = torch.tensor([8, 5, 2, 3])
        self.invalid = torch.arange(B)[None, :] >= self.num_valid[:, None]
        self.x = random(K, B, *model.sample_shape)
        self.x[self.invalid] = 1e3  # what stands in padded rows must not matter
        self.y = torch.randint(model.num_outputs, (K, B), generator=generator)
        self.kept: torch.Tensor | None = None
        if drops:
            kept = torch.rand(K, model.num_draws, B, generator=generator) > 0.4
            self.kept = kept.double() / 0.6

    def loss_gradients(self) -> Any:
        bound = self.model.bind(self.parameters, self.gradients, self.statistics)
        rows = Rows(self.invalid, self.num_valid.double()[:, None, None])
        loss = LOSSES["cross_entropy"]
        return bound.loss_gradients(self.x.clone(), self.y, rows, self.kept, loss)

    def plain(self, slot: int) -> torch.nn.Module:
        module = plain_module(self.model).double()
        tensors = {**self.parameters, **self.statistics}
        state = {name: tensor[slot].clone() for name, tensor in tensors.items()}
        assert not module.load_state_dict(state, strict=False).unexpected_keys
        return module


@pytest.mark.parametrize("drops", [False, True])
def test_gradients_are_those_of_autograd(model: Model, drops: bool) -> None:
    stack = Stack(model, drops=drops)
    plain = [stack.plain(slot) for slot in range(K)]
    judged = stack.loss_gradients()
    for slot, module in enumerate(plain):
        n = int(stack.num_valid[slot])
        kept = None if stack.kept is None else stack.kept[slot, :, :n].T
        outputs = module.train()(stack.x[slot, :n], kept)
        losses = F.cross_entropy(outputs, stack.y[slot, :n], reduction="none")
        losses.mean().backward()
        assert_close(judged.losses_KB[slot, :n], losses.detach(), **EXACT)
        for name, parameter in module.named_parameters():
            got = stack.gradients[name][slot]
            assert_close(got, parameter.grad, rtol=1e-10, atol=1e-13, msg=lambda m, n=name: n + m)
        for name, buffer in module.named_buffers():
            if "tracked" not in name:
                assert_close(stack.statistics[name][slot], buffer, **EXACT)


def test_outputs_are_those_of_evaluation_mode(model: Model) -> None:
    stack = Stack(model, drops=False)
    stack.loss_gradients()  # so that statistics are not those of the start
    x = stack.x[0]
    outputs = model.outputs(stack.parameters, stack.statistics, x)
    for slot in range(K):
        expected = stack.plain(slot).eval()(x).detach()
        assert_close(outputs[slot].T, expected, **EXACT)
        of_one = (
            {name: tensor[slot] for name, tensor in tensors.items()}
            for tensors in (stack.parameters, stack.statistics)
        )
        assert_close(model.outputs_of_one(*of_one, x.clone()), expected, **EXACT)


def test_parameters_are_those_of_the_plain_form(model: Model) -> None:
    module = plain_module(model)
    shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
    parameters = model.parameters()
    assert {name: p.shape for name, p in parameters.items()} == shapes
    penalised = {id(p) for p in penalised_of(module)}
    expected = {name for name, p in module.named_parameters() if id(p) in penalised}
    assert {name for name, p in parameters.items() if p.is_penalised} == expected
    assert set(ParameterLayout(model).penalised) == expected
    buffers = {n: tuple(b.shape) for n, b in module.named_buffers() if "tracked" not in n}
    assert {name: s.shape for name, s in model.statistics().items()} == buffers


def test_it_survives_json(model: Model) -> None:
    again = model_from_dict(json.loads(json.dumps(model.as_dict())))
    assert again == model
    assert hash(again) == hash(model)
    assert MODELS[model.kind] is type(model)


def test_its_costs_are_plausible(model: Model) -> None:
    flops = model.forward_flops(16)
    assert flops == 2 * model.forward_flops(8) > 0
    # A gradient takes a product for the weights and one for what flows in, but for the data.
    assert 2 * flops <= model.step_flops(16) <= 3 * flops
    assert model.numbers_per_row >= math.prod(model.sample_shape) + model.num_outputs
    spec = StepSpec.of(config(), model, 100, "float32")
    assert bytes_per_slot(spec, 4) > 4 * 4 * layouts(model)[0].row_size


Result = dict[str, torch.Tensor]
WIDTH = 4
EPOCHS = 2
RUNS: list[dict[str, Any]] = [
    {"learning_rate": 0.01, "dropout": 0.3},
    {"learning_rate": 0.003, "l1": 0.01, "penalize": "all", "dropout": 0.1},
    {"learning_rate": 0.03, "l2": 0.02, "weight_decay": 0.1, "dropout": 0.5},
    {"learning_rate": 0.001, "l1": 0.02, "l1_update": "proximal", "dropout": 0.2},
]


class Runs:
    """Runs of a model whose batches are odd, the last of them of one row."""

    def __init__(self, model: Model, dtype: torch.dtype, program: dict[str, Any]) -> None:
        self.data: DeviceData = samples(model, num_train=47, dtype=dtype)
        self.configs = [
            config(seed=seed, batch_size=23, epochs=EPOCHS, **changes)
            for seed, changes in enumerate(RUNS)
        ]
        self.spec = step_spec(self.configs[0], model, self.data)
        self._program = program

    def pack(self) -> Pack:
        return Pack(self.spec, self.data, width=WIDTH, **self._program)

    def alone(self, run: int) -> Result:
        pack = self.pack()
        pack.load(run, self.configs[run])
        return results(pack, {run: run})[run]


def results(pack: Pack, slots: dict[int, int]) -> dict[int, Result]:
    """What runs come to, by their numbers; `slots` gives those by slot."""
    ended: dict[int, Result] = {}
    while len(ended) < len(slots):
        pack.tick()
        for slot, run in slots.items():
            if run not in ended and pack.epochs_done(slot) == EPOCHS:
                (metrics,) = pack.epoch_metrics([slot])
                row = torch.tensor(metrics, dtype=torch.float64)
                ended[run] = {**pack.state(slot).tensors, "metrics": row}
    return ended


def assert_same(one: dict[int, Result], other: dict[int, Result]) -> None:
    for run, result in one.items():
        for name, tensor in result.items():
            assert torch.equal(tensor, other[run][name]), (run, name)


@pytest.fixture
def runs(model: Model, program: dict[str, Any]) -> Runs:
    return Runs(model, torch.float32, program)


def test_neighbours_slots_and_refills_change_no_bit(runs: Runs) -> None:
    expected = {run: runs.alone(run) for run in range(WIDTH)}
    assert all(result["parameters"].isfinite().all() for result in expected.values())
    chance = random.Random(1)
    for order in ([0, 1, 2, 3], [2, 3, 1, 0]):
        pack = runs.pack()
        for slot in range(WIDTH):
            fill(pack, slot, float("nan"))
        refilled = chance.randrange(WIDTH)
        stranger = replace(runs.configs[3], seed=99, learning_rate=1e6)
        for slot, run in enumerate(order):
            pack.load(slot, stranger if slot == refilled else runs.configs[run])
        for _ in range(chance.randrange(1, pack.steps_per_epoch * EPOCHS)):
            pack.tick()
        # Ticks have passed, so the others end before the one that comes now.
        fill(pack, refilled, float("inf"))
        pack.free(refilled)
        pack.load(refilled, runs.configs[order[refilled]])
        others = {slot: run for slot, run in enumerate(order) if slot != refilled}
        assert_same(results(pack, others), expected)
        newcomer = order[refilled]
        assert_same(results(pack, {refilled: newcomer}), expected)


def test_a_neighbour_of_nan_does_not_show(runs: Runs) -> None:
    expected = {2: runs.alone(2)}
    pack = runs.pack()
    for slot in range(WIDTH):
        pack.load(slot, runs.configs[slot])
        if slot != 2:
            fill(pack, slot, float("nan"))
    assert_same(results(pack, {2: 2}), expected)


@pytest.mark.parametrize("changes", RUNS)
@pytest.mark.parametrize("form", ["eager", "native"])
def test_it_trains_as_a_plain_loop_does(
    model: Model, changes: dict[str, Any], form: str, kernels: Kernels
) -> None:
    """In float64, over 200 steps; penalties and dropout included."""
    data = samples(model, num_train=47, dtype=torch.float64)
    # A batch norm magnifies rounding where penalties shrink the weights before it.
    gentle = {"l1": 1e-4, "l2": 1e-3} if model.statistics() else {}
    weaker = {name: gentle.get(name, value) for name, value in changes.items()}
    run = config(batch_size=24, epochs=100, **weaker)
    program = {} if form == "eager" else {"kernels": kernels}
    training = TrainingRun(run, model, data, width=2, **program)
    reports = list(training.epochs())
    plain = train_plainly(run, model, data)
    # What a batch norm takes out again is rounding, which Adam divides by rounding.
    unseen = {"layers.0.bias", "layers.1.bias"} if model.statistics() else set()
    for name, weight in training.outcome().weights.items():
        if name not in unseen and "running_mean" not in name:
            expected = plain.model.state_dict()[name]
            assert_close(weight, expected, **EXACT, msg=lambda text, name=name: f"{name} {text}")
    losses = [report.metrics["train_loss"] for report in reports]
    assert losses == pytest.approx(plain.train_losses, rel=1e-10)


def test_the_compiled_form_computes_the_same_step(model: Model) -> None:
    """Before its compiler, which takes it from there; of penalties it reads the same definition."""
    data = samples(model, num_train=47, dtype=torch.float64)
    run = config(batch_size=23, l1=0.1, l2=0.2, weight_decay=0.3, dropout=0.3)
    spec = step_spec(run, model, data)
    packs = [Pack(spec, data, width=2) for _ in range(2)]
    for pack in packs:
        for slot in range(2):
            pack.load(slot, replace(run, seed=slot))
        pack.tick()
    eager, traced = packs
    eager.tick()
    batch = Batches(traced._memory.inputs())(padding=True)
    TracedStep(spec, updates=True)(step_inputs(traced._memory, batch, None))
    for name, stacks in eager._memory.state.items():
        for slot in range(2):
            assert_close(traced._memory.state[name].row(slot), stacks.row(slot), **EXACT)
