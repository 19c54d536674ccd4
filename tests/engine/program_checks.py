"""What must hold for every program that is not plain torch: cases, and the checks of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from ridgeline.search.engine import DeviceData, Mlp, RunConfig, TrainingRun
from ridgeline.search.engine.models.base import Model
from ridgeline.search.engine.pack import Pack
from ridgeline.search.engine.spec import StepSpec
from tests.engine.plain import train_plainly
from tests.engine.sets import CPU, blobs, config, fill, on_device, samples, shape_for, step_spec

WIDTH = 4
EPOCHS = 3


class Case:
    """Runs of one program; what they have in common is odd, and does not divide evenly."""

    def __init__(
        self,
        data: DeviceData,
        runs: list[dict[str, Any]],
        *,
        hidden: tuple[int, ...] = (33, 7),
        batch_size: int = 23,
        **shape: Any,
    ) -> None:
        self.data = data
        self.shape: Mlp = shape_for(data, hidden=hidden, **shape)
        self.configs = [
            config(seed=seed, batch_size=batch_size, epochs=EPOCHS, **changes)
            for seed, changes in enumerate(runs)
        ]
        self.spec: StepSpec = step_spec(self.configs[0], self.shape, self.data)


class CaseOfKinds(Case):
    """Runs of a model with strengths of their own, over samples that suit the model.

    Args:
        strengths: by kind, those of the four runs.
        kinds: that the runs have.
    """

    def __init__(
        self,
        strengths: Mapping[Any, Sequence[float]],
        model: Model,
        kinds: Iterable[str],
        *,
        dtype: torch.dtype,
        num_train: int = 101,
        batch_size: int = 23,
        **changes: Any,
    ) -> None:
        self.data: DeviceData = samples(model, num_train=num_train, dtype=dtype)
        self.shape = model
        self.configs = [
            config(
                seed=seed,
                batch_size=batch_size,
                epochs=EPOCHS,
                **{"learning_rate": 0.01 / (seed + 1), **changes},
                **{kind: strengths[kind][seed] for kind in kinds},
            )
            for seed in range(4)
        ]
        self.spec = step_spec(self.configs[0], model, self.data)


ADAM: list[dict[str, Any]] = [
    {"learning_rate": 0.01, "dropout": 0.3},
    {"learning_rate": 0.003, "l1": 0.01, "penalize": "all", "dropout": 0.1},
    {"learning_rate": 0.03, "l2": 0.02, "weight_decay": 0.1, "dropout": 0.5, "schedule": "cosine"},
    {"learning_rate": 0.001, "l1": 0.02, "l1_update": "proximal", "dropout": 0.2, "warmup": 0.2},
]
SGD: list[dict[str, Any]] = [
    {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "clip_norm": 0.5},
    {"learning_rate": 0.03, "momentum": 0.9, "l1": 0.01, "clip_norm": 0.1},
    {"learning_rate": 0.3, "l2": 0.02, "weight_decay": 0.1, "penalize": "all", "clip_norm": 1.0},
    {"learning_rate": 0.05, "l1": 0.02, "l1_update": "proximal", "clip_norm": 9.0},
]
SMALL, SMALL64 = (
    blobs(num_train=101, num_features=13, dtype=dtype) for dtype in (torch.float32, torch.float64)
)
# By the mean over the rows, and by all outputs at once.
JUDGED = [
    {**run, "monitor": f"validation_{name}", "direction": direction}
    for run, (name, direction) in zip(
        ADAM,
        [
            ("roc_auc", "maximize"),
            ("accuracy", "maximize"),
            ("macro_f1", "maximize"),
            ("log_loss", "minimize"),
        ],
        strict=True,
    )
]
# Past the cache, and with products for oneDNN where that is faster: both have ways of their own.
LARGE = blobs(num_train=28_001, num_features=301, dtype=torch.float32)
CASES = {
    "adam": Case(SMALL, ADAM),
    "adam64": Case(SMALL64, ADAM),
    "sgd-norm": Case(
        SMALL, [{**run, "optimizer": "sgd"} for run in SGD], batch_norm=True, activation="tanh"
    ),
    "sgd64": Case(SMALL64, [{**run, "optimizer": "sgd"} for run in SGD]),
    "judged": Case(SMALL, JUDGED),
    "large": Case(LARGE, ADAM, hidden=(133, 70), batch_size=231),
}


WEIGHED64 = Case(
    SMALL64, [{**run, "class_weights": (1.0, 0.3, 4.0 + i)} for i, run in enumerate(ADAM)]
)
"""With class weights; there are no compiled programs of such steps."""


def result(pack: Pack, slot: int) -> dict[str, torch.Tensor]:
    metrics = torch.tensor(pack.epoch_metrics([slot])[0], dtype=torch.float64)
    return {**pack.state(slot).tensors, "metrics": metrics}


def alone(case: Case, program: dict[str, Any], run: int) -> dict[str, torch.Tensor]:
    """A run with nobody beside it, in a slot of its own number."""
    pack = Pack(case.spec, case.data, width=WIDTH, **program)
    pack.load(run, case.configs[run])
    for _ in range(EPOCHS):
        pack.tick(pack.ticks_to_epoch_end)
    return result(pack, run)


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    for key, tensor in one.items():
        assert torch.equal(tensor, other[key]), key


def check_that_neighbours_slots_and_refills_change_no_bit(
    case: Case, program: dict[str, Any]
) -> None:
    expected = [alone(case, program, run) for run in range(WIDTH)]
    for order in ([0, 1, 2, 3], [2, 3, 1, 0]):
        pack = Pack(case.spec, case.data, width=WIDTH, **program)
        for slot in range(WIDTH):
            fill(pack, slot, float("nan"))
        # The third slot is first another run's, and is refilled in the middle of an epoch.
        others = replace(case.configs[3], seed=99, learning_rate=1e6)
        for slot, run in enumerate(order):
            pack.load(slot, others if slot == 2 else case.configs[run])
        pack.tick(3)
        pack.free(2)
        fill(pack, 2, float("inf"))
        pack.load(2, case.configs[order[2]])
        results: dict[int, dict[str, torch.Tensor]] = {}
        while len(results) < WIDTH:
            pack.tick(pack.ticks_to_epoch_end)
            for slot in range(WIDTH):
                if (
                    slot not in results
                    and pack.epochs_done(slot) == EPOCHS
                    and pack.at_epoch_end(slot)
                ):
                    results[slot] = result(pack, slot)
        for slot, run in enumerate(order):
            assert_same_bits(results[slot], expected[run])


def check_that_a_slot_without_a_run_is_frozen(case: Case, program: dict[str, Any]) -> None:
    pack = Pack(case.spec, case.data, width=WIDTH, **program)
    for slot, run_config in enumerate(case.configs):
        pack.load(slot, run_config)
    pack.tick(2)
    before = {key: stacks.row(1) for key, stacks in pack._memory.state.items()}
    pack.free(1)
    pack.tick(2)
    assert_same_bits({key: stacks.row(1) for key, stacks in pack._memory.state.items()}, before)


def check_that_it_agrees_with_the_plain_loop(
    case: Case, program: dict[str, Any], device: torch.device = CPU
) -> None:
    """The plain loop trains on the CPU."""
    epochs = 40  # of 5 steps
    data = on_device(case.data, device)
    for run_config in case.configs:
        whole: RunConfig = replace(run_config, epochs=epochs)
        run = TrainingRun(whole, case.shape, data, width=WIDTH, **program)
        reports = list(run.epochs())
        plain = train_plainly(whole, case.shape, case.data)
        for key, weight in run.outcome().weights.items():
            assert_close(weight, plain.model.state_dict()[key], rtol=1e-10, atol=1e-12)
        losses = [report.metrics["validation_loss"] for report in reports]
        assert losses == pytest.approx(plain.validation_losses, rel=1e-10)
        accuracies = [report.metrics["train_accuracy"] for report in reports]
        assert accuracies == pytest.approx(plain.train_accuracies, rel=1e-10)


def check_that_denormals_are_flushed(case: Case, program: dict[str, Any]) -> None:
    """Moments below 1e-38, as large learning rates with l2 bring them about, become 0."""
    pack = Pack(case.spec, case.data, width=WIDTH, **program)
    assert pack.program.denormals == "flushed"
    for slot, run_config in enumerate(case.configs):
        pack.load(slot, run_config)
    moments = pack._memory.moments["second_moment"].views().values()
    for moment in moments:
        moment.view(torch.int32).fill_(1)  # the least of all
    pack.tick(1)
    for moment in moments:
        bits = moment.view(torch.int32)
        assert not ((bits > 0) & (bits < 0x00800000)).any()
