"""The regularisers: as a plain loop has them, by each slot's own strengths, and in shared packs."""

from __future__ import annotations

import math
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import scipy.stats
import torch
from torch import nn
from torch.testing import assert_close

from ridgeline.search.engine import (
    Began,
    CheckpointError,
    LaneOptions,
    Lanes,
    Mlp,
    Pack,
    ProgramIdentity,
    RunConfig,
    Saved,
    TrainingRun,
    rng,
)
from ridgeline.search.engine.batch import Batches
from ridgeline.search.engine.checkpoint import load_checkpoint, save_checkpoint
from ridgeline.search.engine.compiled import CompiledProgram, Job, step_inputs
from ridgeline.search.engine.config import Regulariser
from ridgeline.search.engine.layout import layouts
from ridgeline.search.engine.losses import LOSSES
from ridgeline.search.engine.memory import PackMemory, bytes_per_slot
from ridgeline.search.engine.models.base import Parameter
from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.regulariser_memory import noise_counters, noise_scales
from ridgeline.search.engine.saved import SavedRun
from ridgeline.search.engine.spec import LOSSES_OF_LABELS
from ridgeline.search.engine.step import TracedStep
from tests.engine.lane_runs import alone as alone_in_a_pack
from tests.engine.lane_runs import assert_same, drain, outcomes
from tests.engine.models import nets
from tests.engine.models.toy import Toy
from tests.engine.plain import penalised_of
from tests.engine.plain_regularise import without_dropped_inputs
from tests.engine.program_checks import (
    CaseOfKinds,
    assert_same_bits,
    check_that_a_slot_without_a_run_is_frozen,
    check_that_it_agrees_with_the_plain_loop,
    check_that_neighbours_slots_and_refills_change_no_bit,
    result,
)
from tests.engine.sets import CPU, blobs, config, samples, shape_for, step_spec
from tests.parallel import locked

KINDS: tuple[Regulariser, ...] = get_args(Regulariser)
SINGLE, DOUBLE = torch.float32, torch.float64

STRENGTHS: dict[Regulariser, tuple[float, float, float, float]] = {
    "max_norm": (0.3, 0, 0.6, 2),
    "input_dropout": (0.2, 0, 0.5, 0.01),
    "label_smoothing": (0.1, 0, 0.4, 0.01),
    "gradient_noise": (0.01, 0, 1, 1e-4),
}
"""Of each of the four runs of a case: the second one goes without."""


Regularised = partial(CaseOfKinds, STRENGTHS)
"""Runs with regularisers."""


VECTOR = Mlp(13, (33, 7), 3)
NORM = Mlp(13, (9, 5), 3, activation="tanh", batch_norm=True)
IMAGE = Toy((2, 5, 7), 3)
CONVOLUTIONS = ModuleModel.of(nets.convolutional, (2, 6, 6), 3)
WITHOUT_INPUT: tuple[Regulariser, ...] = ("max_norm", "label_smoothing", "gradient_noise")
SGD = {"optimizer": "sgd", "momentum": 0.9}
PLAIN = {
    **{kind: Regularised(VECTOR, (kind,), dtype=DOUBLE) for kind in KINDS},
    "all": Regularised(
        VECTOR, KINDS, dtype=DOUBLE, dropout=0.2, l1=0.001, l2=0.01, weight_decay=0.1
    ),
    "clipped": Regularised(
        VECTOR, KINDS, dtype=DOUBLE, clip_norm=0.3, l1=0.01, l1_update="proximal", **SGD
    ),
    "all parameters penalised": Regularised(
        VECTOR, KINDS, dtype=DOUBLE, l2=0.01, penalize="all", nesterov=True, **SGD
    ),
    "batch norm": Regularised(NORM, KINDS, dtype=DOUBLE, learning_rate=0.02, **SGD),
    "image": Regularised(IMAGE, KINDS, dtype=DOUBLE, dropout=0.1, mixup=0.3, shift=1),
    "convolutions": Regularised(CONVOLUTIONS, KINDS, dtype=DOUBLE, clip_norm=1.0),
    "slot by slot": Regularised(
        ModuleModel.of(nets.Branches, (5,), 3), KINDS, dtype=DOUBLE, mixup=0.3
    ),
}
COMPILED = Regularised(NORM, KINDS, dtype=DOUBLE, learning_rate=0.02, **SGD)
"""Of runs that all have all: alone they are in the program that they share."""
COMPILED.configs[1] = replace(COMPILED.configs[2], seed=1)
BITS = {
    "all": Regularised(VECTOR, KINDS, dtype=SINGLE, dropout=0.2, l2=0.01),
    "all64": Regularised(Mlp(5, (8, 7, 5), 4), KINDS, dtype=DOUBLE, clip_norm=0.3, **SGD),
    "batch norm": Regularised(NORM, KINDS, dtype=SINGLE, num_train=93),
    "batches of one row": Regularised(NORM, KINDS, dtype=SINGLE, num_train=5, batch_size=1),
    "softmax": Regularised(Mlp(11, (), 3), KINDS, dtype=SINGLE, num_train=70),
    "image": Regularised(IMAGE, KINDS, dtype=SINGLE, dropout=0.1, mixup=0.3, shift=1),
    "convolutions": Regularised(CONVOLUTIONS, KINDS, dtype=SINGLE, num_train=70),
    "slot by slot": Regularised(
        ModuleModel.of(nets.Branches, (5,), 3), KINDS, dtype=SINGLE, num_train=70, mixup=0.3
    ),
}


@pytest.mark.parametrize("name", PLAIN)
def test_it_agrees_with_a_plain_loop(name: str, program: dict[str, Any]) -> None:
    check_that_it_agrees_with_the_plain_loop(PLAIN[name], program)


@pytest.mark.parametrize("name", BITS)
def test_neighbours_slots_and_refills_change_no_bit(name: str, program: dict[str, Any]) -> None:
    """Alone a run has a pack of its own regularisers, and the second one a pack without any."""
    check_that_neighbours_slots_and_refills_change_no_bit(BITS[name], program)


@pytest.mark.parametrize("name", ["all", "batch norm"])
def test_a_slot_without_a_run_is_frozen(name: str, program: dict[str, Any]) -> None:
    check_that_a_slot_without_a_run_is_frozen(BITS[name], program)


def test_a_run_that_comes_late_brings_its_regularisers_along(program: dict[str, Any]) -> None:
    """In the middle of its neighbours' epochs, one kind after the other."""
    data = samples(VECTOR, num_train=101, dtype=SINGLE)
    runs = [config(seed=0, batch_size=23), *_one_of_each_kind(batch_size=23)]
    spec = step_spec(runs[0], VECTOR, data)
    pack = Pack(spec, data, width=8, **program)
    expected, got = [], {}
    for run in runs:
        single = Pack(spec, data, width=8, **program)
        single.load(5, run)
        for _ in range(run.epochs):
            single.tick(single.ticks_to_epoch_end)
        expected.append(result(single, 5))
    for slot, run in enumerate(runs):
        pack.load(slot, run)
        pack.tick(1)
    while len(got) < len(runs):
        pack.tick(1)
        for slot, run in enumerate(runs):
            if slot not in got and pack.at_epoch_end(slot) and pack.epochs_done(slot) == run.epochs:
                got[slot] = result(pack, slot)
    for slot, wanted in enumerate(expected):
        assert_same_bits(got[slot], wanted)


def _one_of_each_kind(**changes: Any) -> list[RunConfig]:
    return [
        config(seed=1 + i, **changes, **{kind: STRENGTHS[kind][0]}) for i, kind in enumerate(KINDS)
    ]


def test_regularisers_of_0_leave_a_step_as_it_is(program: dict[str, Any]) -> None:
    data = samples(VECTOR, num_train=50, dtype=SINGLE)
    pack = Pack(step_spec(config(), VECTOR, data), data, width=2, **program)
    pack.load(0, config())
    assert config().regularisers == ()
    assert pack.spec.regularises == ()
    assert not any(name.startswith("regularisers") for name in pack._memory.inputs())
    pack.load(1, config(max_norm=1, gradient_noise=0.1))
    assert pack.spec.regularises == ("max_norm", "gradient_noise")
    assert step_spec(config(max_norm=1), VECTOR, data) == step_spec(config(), VECTOR, data)


def test_lanes_do_not_part_runs_by_regularisers(
    program: dict[str, Any], kernels_folder: Path, no_clock: None
) -> None:
    data = blobs(num_train=50, dtype=SINGLE)
    shape = shape_for(data, hidden=(9,))
    runs = dict(enumerate([config(seed=9), *_one_of_each_kind(epochs=4), config(epochs=2)]))
    options = LaneOptions(width=8, cache=kernels_folder, compile=bool(program))
    lanes = Lanes(CPU, options)
    for key, run in runs.items():
        lanes.add(key, run, shape, data, keep_weights=True)
    assert len(lanes._lanes) == 1
    (lane,) = lanes._lanes.values()
    events = lanes.advance()
    assert len([event for event in events if isinstance(event, Began)]) == len(runs)
    assert len(lane.packs) == 1
    ended = outcomes(events + drain(lanes))
    for key, run in runs.items():
        assert_same(ended[key], alone_in_a_pack(run, shape, data, 8, **program))


def test_a_run_goes_on_from_a_checkpoint_to_the_same_end(program: dict[str, Any]) -> None:
    case = BITS["all"]
    run = replace(case.configs[0], patience=3)
    whole = TrainingRun(run, VECTOR, case.data, width=4, **program)
    list(whole.epochs())
    first = TrainingRun(run, VECTOR, case.data, width=4, **program)
    next(first.epochs())
    saved = first.checkpoint()
    second = TrainingRun(run, VECTOR, case.data, width=4, checkpoint=saved, **program)
    list(second.epochs())
    assert_same(whole.outcome(), second.outcome())


def test_a_checkpoint_that_is_older_than_the_fields_is_of_a_run_without() -> None:
    case = Regularised(VECTOR, (), dtype=SINGLE)
    run = case.configs[0]
    training = TrainingRun(run, VECTOR, case.data)
    next(training.epochs())
    tensors, metadata = load_checkpoint(training.checkpoint())
    for kind in KINDS:
        del metadata["config"][kind]
    older = save_checkpoint(tensors, metadata)
    assert SavedRun.read(older, run, case.spec, case.data).state.epochs_done == 1
    with pytest.raises(CheckpointError, match="another config"):
        SavedRun.read(older, replace(run, max_norm=1.0), case.spec, case.data)


@pytest.fixture
def programs(shared_folder: Path) -> Path:
    """A folder for compiled programs, and for the native kernels that call them."""
    folder = shared_folder / "programs-of-regularisers"
    folder.mkdir(exist_ok=True)
    return folder


def compiled(case: CaseOfKinds, folder: Path, kernels: Kernels) -> dict[str, Any]:
    """The program of a case with all regularisers."""
    job = Job.of(case.spec.regularising(KINDS), case.data, threads=1)
    with locked(folder.with_name(f"{job.name}.lock")):
        if not (folder / job.name).exists():
            job.compile(folder / job.name, folder)
    return {"compiled": CompiledProgram(folder / job.name, kernels, job)}


# Of the compiler itself, which a worker runs in a process of its own.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_a_compiled_program_keeps_to_all_of_this(programs: Path, kernels: Kernels) -> None:
    for check, case in (
        (check_that_neighbours_slots_and_refills_change_no_bit, BITS["batch norm"]),
        (check_that_a_slot_without_a_run_is_frozen, BITS["batch norm"]),
        (check_that_it_agrees_with_the_plain_loop, COMPILED),
    ):
        program = compiled(case, programs, kernels)
        of_all = copy(case)  # other tests share the case
        of_all.spec = case.spec.regularising(KINDS)
        check(of_all, program)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_lanes_share_a_compiled_program(programs: Path, kernels: Kernels, no_clock: None) -> None:
    case = BITS["batch norm"]
    program = compiled(case, programs, kernels)
    same = {"batch_size": 23, "epochs": 4}
    runs = dict(enumerate([config(**same), *_one_of_each_kind(**same), config(seed=9, **same)]))
    lanes = Lanes(CPU, LaneOptions(width=8, cache=programs, save_seconds=0))
    for key, run in runs.items():
        lanes.add(key, run, NORM, case.data, keep_weights=True)
    (lane,) = lanes._lanes.values()
    events = lanes.advance()
    assert len(lane.packs) == 1
    events += drain(lanes)
    identities = {event.program for event in events if isinstance(event, Began)}
    (identity,) = map(ProgramIdentity.parse, identities)
    assert (identity.form, identity.regularisers) == ("compiled", KINDS)
    spec = case.spec.regularising(KINDS)
    for key, run in runs.items():
        pack = Pack(spec, case.data, width=8, **program)
        pack.load(3, run)
        for _ in range(run.epochs):
            pack.tick(pack.ticks_to_epoch_end)
        weights = pack.named(pack.weights(3))
        for name, weight in outcomes(events)[key].weights.items():
            assert torch.equal(weight, weights[name]), name
    # A run without goes on in the program that it began with, with nobody beside it that has any.
    saved = [event for event in events if isinstance(event, Saved) and event.key == 0]
    again = Lanes(CPU, LaneOptions(width=8, cache=programs))
    again.add(0, runs[0], NORM, case.data, keep_weights=True, checkpoint=saved[1].content)
    told = drain(again)
    assert {event.program for event in told if isinstance(event, Began)} == identities
    assert_same(outcomes(told)[0], outcomes(events)[0])


def test_a_compiled_pack_takes_runs_of_its_regularisers_alone() -> None:
    """As far as can be told without a compiler."""
    case = BITS["batch norm"]
    pack = Pack(case.spec.regularising(("max_norm",)), case.data, width=2)
    pack._is_compiled = True
    assert pack.takes(case.configs[1])
    assert pack.takes(replace(case.configs[1], max_norm=1.0))
    with pytest.raises(ValueError, match="regularisers are"):
        pack.load(0, case.configs[0])


@pytest.mark.parametrize("name", BITS)
def test_the_compiled_form_computes_the_same_step(name: str) -> None:
    case = BITS[name]
    if not case.shape.compiles:
        pytest.skip("the model has no compiled form")
    spec = case.spec.regularising(KINDS)
    eager = Pack(spec, case.data, width=4)
    traced = PackMemory(spec, 4, case.data)
    for slot, run_config in enumerate(case.configs):
        eager.load(slot, run_config)
    eager.tick(1)
    for mine, its in zip(traced._by_slot(), eager._memory._by_slot(), strict=True):
        mine.copy_(its)
    eager.tick(1)
    batch = Batches(traced.inputs())(padding=True)
    TracedStep(spec, updates=True)(step_inputs(traced, batch, None))
    for key, tensor in traced.inputs().items():
        assert_close(tensor, eager._memory.inputs()[key], rtol=1e-4, atol=1e-5)


def test_a_job_says_which_regularisers_it_has() -> None:
    case = PLAIN["all"]
    job = Job.of(case.spec.regularising(("gradient_noise", "max_norm")), case.data, threads=1)
    assert job.regularises == ("max_norm", "gradient_noise")
    assert Job.from_json(job.as_json()) == job
    assert replace(job, regularises=()).name != job.name


def test_what_is_not_for_a_model_or_a_loss_is_refused() -> None:
    data = samples(VECTOR, num_train=20, dtype=SINGLE)
    tokens = ModuleModel.of(nets.embedding_bag, (4,), 3, 11)
    with pytest.raises(ValueError, match="input_dropout must be 0: the samples are ids"):
        step_spec(config(input_dropout=0.2), tokens, data)
    step_spec(config(**dict.fromkeys(WITHOUT_INPUT, 0.2)), tokens, data)
    assert {name for name, loss in LOSSES.items() if loss.takes_smoothing} == {*LOSSES_OF_LABELS}


def test_evaluation_sees_samples_and_targets_as_they_are() -> None:
    """With a learning rate of next to nothing both runs have the same weights."""
    data = samples(VECTOR, num_train=50, dtype=DOUBLE)
    metrics = []
    for changes in ({}, {"input_dropout": 0.5, "label_smoothing": 0.5, "gradient_noise": 1.0}):
        run = TrainingRun(config(learning_rate=1e-300, epochs=1, **changes), VECTOR, data)
        (report,) = run.epochs()
        metrics.append(report.metrics | run.outcome().metrics)
    plain, changed = metrics
    assert plain["train_loss"] != changed["train_loss"]
    for key in plain:
        if not key.startswith("train"):
            assert plain[key] == changed[key], key


def test_incoming_weights_have_a_bound_and_no_others() -> None:
    data = samples(NORM, num_train=50, dtype=DOUBLE)
    run = TrainingRun(config(max_norm=0.25, epochs=2, learning_rate=0.1), NORM, data)
    list(run.epochs())
    for name, weight in run.outcome().weights.items():
        if "layers" in name and "weight" in name:
            norms = weight.norm(dim=1)
            assert (norms <= 0.25 * (1 + 1e-12)).all()
            assert_close(norms.max(), torch.tensor(0.25, dtype=DOUBLE), rtol=1e-12, atol=0)
        if "norms" in name and name.endswith("weight"):
            assert weight.min() > 0.25


def transposed() -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.Conv2d(3, 4, 7), nn.Flatten())


def test_units_are_rows_of_what_is_penalised() -> None:
    assert Parameter((4, 3, 2), True).num_units == 4
    assert Parameter((4, 3), False).num_units == 0
    assert Parameter((4,), True).num_units == 0
    model = ModuleModel.of(transposed, (2, 6, 6), 4)
    assert {name: p.num_units for name, p in model.parameters().items()} == {
        "0.weight": 0, "0.bias": 0, "1.weight": 4, "1.bias": 0,
    }  # fmt: skip
    recurrent = ModuleModel.of(nets.Recurrent, (4,), 3, 11).parameters()
    assert recurrent["embed.weight"].num_units == 11
    assert recurrent["rnn.weight_hh_l0"].num_units == 15
    assert len(penalised_of(transposed())) == 1  # the oracle knows no transposed ones


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_a_norm_that_is_not_finite_is_left_as_it_is(value: float, program: dict[str, Any]) -> None:
    data = samples(VECTOR, num_train=50, dtype=SINGLE)
    pack = Pack(step_spec(config(), VECTOR, data), data, width=2, **program)
    pack.load(0, config(max_norm=1.0, learning_rate=1e-30))
    pack.load(1, config(max_norm=1.0, learning_rate=1e-30))
    pack.tick(1)
    weights = pack._memory.parameters.views()["layers.1.weight"]
    weights[0, 2, 5] = value
    pack.tick(1)
    assert not weights[0, 2, 5].abs() < 1e29
    assert weights[1].isfinite().all()


def test_inputs_are_dropped_with_their_probability() -> None:
    left = without_dropped_inputs(config(input_dropout=0.3), 5, torch.ones(200, 50))
    share = float((left == 0).double().mean())
    assert abs(share - 0.3) < 4 * math.sqrt(0.21 / 10_000)
    assert left.unique().tolist() == pytest.approx([0, 1 / 0.7])


def test_noise_falls_with_the_steps() -> None:
    scales = noise_scales(0.3, 0, 1000)
    np.testing.assert_allclose(np.square(scales), 0.3 / np.arange(1, 1001) ** 0.55, rtol=1e-12)
    assert np.array_equal(noise_scales(0.3, 400, 600), scales[400:])
    assert not noise_scales(0.0, 0, 3).any()


def test_noise_is_normal_and_of_its_own_stream() -> None:
    """What a learning rate of 1 takes off the weights of a model whose gradient is known."""
    data = samples(VECTOR, num_train=23, dtype=DOUBLE)
    moved = []
    for changes in ({"gradient_noise": 0.25}, {}):
        run = config(batch_size=23, optimizer="sgd", learning_rate=1.0, epochs=1, **changes)
        training = TrainingRun(run, VECTOR, data)
        list(training.epochs())
        moved.append(torch.cat([w.flatten() for w in training.outcome().weights.values()]))
    noise = (moved[0] - moved[1]).numpy() / 0.5
    assert scipy.stats.kstest(noise, "norm").pvalue > 1e-3
    assert len({*rng.Stream}) == len(rng.Stream)


def test_every_number_has_a_draw_of_its_own_and_gaps_have_none() -> None:
    layout, _ = layouts(VECTOR)
    counters = noise_counters(layout, CPU)
    numbers = torch.cat([view.flatten() for view in layout.views(counters[None]).values()])
    assert torch.equal(numbers, rng.counters(len(numbers), CPU))
    assert int((counters == 0).sum()) == layout.row_size - len(numbers)


def test_memory_is_foreseen() -> None:
    case = PLAIN["all"]
    plain = bytes_per_slot(case.spec, 8)
    for kind in KINDS:
        assert bytes_per_slot(case.spec.regularising((kind,)), 8) > plain
    noisy = bytes_per_slot(case.spec.regularising(("gradient_noise",)), 8)
    assert noisy - plain >= 33 * 13 * (8 + 8)


def test_kinds_are_independent_of_each_other(program: dict[str, Any]) -> None:
    """A kind draws the same whichever others are in use, those of next to no strength here."""
    data = samples(VECTOR, num_train=50, dtype=DOUBLE)
    run = config(input_dropout=0.3, gradient_noise=0.01)
    also = replace(run, max_norm=1e6, label_smoothing=1e-300)
    results = [alone_in_a_pack(one, VECTOR, data, 2, **program).weights for one in (run, also)]
    for name, weight in results[0].items():
        assert_close(weight, results[1][name], rtol=1e-12, atol=0)
