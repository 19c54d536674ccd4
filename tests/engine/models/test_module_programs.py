"""Compiled programs of modules: right against plain loops, and the same bits in any slot."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from ridgeline.search.engine import (
    Began,
    DeviceData,
    LaneOptions,
    Lanes,
    Pack,
    RunConfig,
    admission,
    native,
)
from ridgeline.search.engine.admission import Widths, _check_slots_are_alone
from ridgeline.search.engine.compilation import Compilation
from ridgeline.search.engine.compiled import CompiledProgram, Job
from ridgeline.search.engine.models.base import Model
from ridgeline.search.engine.models.module import ModuleModel
from ridgeline.search.engine.program import ProgramIdentity
from ridgeline.search.engine.spec import StepSpec
from tests.engine.lane_runs import drain, outcomes
from tests.engine.models import nets
from tests.engine.models.test_contract import assert_same, results
from tests.engine.plain import epochs_for, train_plainly
from tests.engine.sets import CPU, config, fill, samples, step_spec
from tests.parallel import locked

pytestmark = pytest.mark.slow

NUM_TRAIN, BATCH_SIZE = 49, 15  # whose last batch is four rows
EXACT = {"rtol": 1e-10, "atol": 1e-12}


class Case:
    """Runs of one program."""

    def __init__(
        self, model: Model, dtype: torch.dtype, width: int, runs: list[dict[str, Any]]
    ) -> None:
        self.model, self.width = model, width
        self.data: DeviceData = samples(model, num_train=NUM_TRAIN, dtype=dtype)
        self.configs = [
            config(seed=seed, batch_size=BATCH_SIZE, epochs=2, **changes)
            for seed, changes in enumerate(runs)
        ]
        self.spec: StepSpec = step_spec(self.configs[0], model, self.data)
        self.job = Job.of(self.spec, self.data, 1, width)


PENALISED: list[dict[str, Any]] = [
    {"learning_rate": 0.01},
    {"learning_rate": 0.003, "l1": 1e-4, "penalize": "all"},
    {"learning_rate": 0.01, "l2": 0.001, "weight_decay": 0.01},
    {"learning_rate": 0.001, "l1": 0.001, "l1_update": "proximal"},
]
DROPPING = [{**run, "dropout": 0.1 + 0.2 * i} for i, run in enumerate(PENALISED)]
CASES = {
    "convolutions": Case(
        ModuleModel.of(nets.residual_net, (2, 6, 6), 3),
        torch.float64,
        1,
        [{**run, "optimizer": "sgd", "momentum": 0.9} for run in PENALISED],
    ),
    "spatial dropout": Case(
        ModuleModel.of(nets.SpatialDrops, (2, 6, 6), 3), torch.float32, 1, DROPPING
    ),
    "norms alone": Case(ModuleModel.of(nets.norms_alone, (3,), 3), torch.float64, 4, PENALISED),
    "a pack": Case(ModuleModel.of(nets.Drops, (5,), 3), torch.float64, 4, DROPPING),
}


@pytest.fixture(scope="session")
def folder(shared_folder: Path) -> Path:
    """The programs of all cases, each made by the process that makes them in a worker."""
    folder = shared_folder / "module-programs"
    with locked(shared_folder / "module-programs.lock"):
        folder.mkdir(exist_ok=True)
        paths = {folder / case.job.name: case.job for case in CASES.values()}
        missing = {path: job for path, job in paths.items() if not path.exists()}
        for compilation in [Compilation(job, path, hurry=True) for path, job in missing.items()]:
            compilation.finish()
    return folder


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def pack_of(case: Case, folder: Path) -> Pack:
    kernels = native.kernels(folder)
    assert kernels is not None, "the tests need a C++ compiler"
    program = CompiledProgram(folder / case.job.name, kernels, case.job)
    return Pack(case.spec, case.data, width=case.width, compiled=program)


def test_it_agrees_with_the_plain_loop(case: Case, folder: Path) -> None:
    """Over 200 steps."""
    exact = EXACT if case.data.dtype == torch.float64 else {"rtol": 2e-3, "atol": 2e-4}
    epochs = epochs_for(200, NUM_TRAIN, BATCH_SIZE)
    for slots in [range(i, i + case.width) for i in range(0, 4, case.width)]:
        pack = pack_of(case, folder)
        runs = [replace(case.configs[run], epochs=epochs) for run in slots]
        for slot, run in enumerate(runs):
            pack.load(slot, run)
        while pack.epochs_done(0) < epochs:
            pack.tick(pack.ticks_to_epoch_end)
        for slot, run in enumerate(runs):
            (metrics,) = pack.epoch_metrics([slot])
            plain = train_plainly(run, case.model, case.data)
            loss = metrics[pack.metrics.index("validation_loss")]
            assert loss == pytest.approx(plain.validation_losses[-1], rel=exact["rtol"])
            expected = {**plain.model.state_dict()}
            for name, tensor in pack.named(pack.weights(slot)).items():
                assert_close(tensor, expected[name], **exact, msg=lambda m, n=name: f"{n} {m}")


def test_neighbours_slots_and_refills_change_no_bit(case: Case, folder: Path) -> None:
    def alone(run: int) -> Any:
        pack = pack_of(case, folder)
        slot = run % case.width
        pack.load(slot, case.configs[run])
        return results(pack, {slot: run})

    expected = {run: result for i in range(4) for run, result in alone(i).items()}
    assert all(result["parameters"].isfinite().all() for result in expected.values())
    pack = pack_of(case, folder)
    for slot in range(case.width):
        fill(pack, slot, float("nan"))
    order = [2, 3, 1, 0][: case.width]
    stranger = replace(case.configs[3], seed=99, learning_rate=1e6)
    for slot, run in enumerate(order):
        pack.load(slot, stranger if slot == 0 else case.configs[run])
    for _ in range(3):
        pack.tick()
    fill(pack, 0, float("inf"))
    pack.free(0)
    pack.load(0, case.configs[order[0]])
    others = {slot: run for slot, run in enumerate(order) if slot != 0}
    assert_same(results(pack, others), expected)
    assert_same(results(pack, {0: order[0]}), expected)


def test_a_slot_without_a_run_is_frozen(folder: Path) -> None:
    case = CASES["a pack"]
    pack = pack_of(case, folder)
    for slot, run in enumerate(case.configs):
        pack.load(slot, run)
    pack.tick()
    before = pack.weights(1)
    pack.free(1)
    pack.tick()
    assert pack.weights(1).parameters_P.equal(before.parameters_P)


def test_weights_are_tested_at_once_as_one_by_one(case: Case, folder: Path) -> None:
    """In whichever place among the others."""
    pack = pack_of(case, folder)
    weights = []
    for run in case.configs:
        pack.load(0, run)
        pack.tick(pack.ticks_to_epoch_end)
        weights.append(pack.weights(0))
        pack.free(0)
    alone = torch.cat([pack.test([one]) for one in weights])
    assert pack.test([*weights, *weights[:2]]).equal(torch.cat([alone, alone[:2]]))
    assert pack.test(weights[::-1]).equal(alone.flip(0))
    assert not alone[0].equal(alone[1])


def test_lanes_train_by_it_one_by_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions, once their program is there and is the faster one."""
    case = CASES["spatial dropout"]
    lanes = Lanes(CPU, LaneOptions(cache=folder))
    monkeypatch.setattr(lanes._widths, "pays", lambda *_, **__: True)
    for run in case.configs:
        lanes.add(run.seed, run, case.model, case.data)
    events = drain(lanes)
    assert {outcome.state for outcome in outcomes(events).values()} == {"complete"}
    programs = {ProgramIdentity.parse(e.program) for e in events if isinstance(e, Began)}
    assert [(p.form, p.width, p.source) for p in programs] == [("compiled", 1, case.model.source)]
    assert case.model.source


def test_a_program_that_does_not_pay_is_left_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES["spatial dropout"]
    lanes = Lanes(CPU, LaneOptions(cache=folder))
    monkeypatch.setattr(lanes._widths, "pays", lambda *_, **__: False)
    lanes.add("run", replace(case.configs[0], epochs=1), case.model, case.data)
    forms = []
    while not lanes.is_idle:
        forms += [e.program.partition("/")[0] for e in lanes.advance() if isinstance(e, Began)]
    assert forms == ["native"]


def verdict(case: Case, folder: Path) -> bool:
    spec, run = case.spec, case.configs[0]
    return Widths(folder).pays(spec, case.data, run, case.width, 1, form="native")


@pytest.mark.parametrize("is_faster", [True, False])
def test_whether_a_program_pays_is_measured_once(
    is_faster: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its slots are tried in any case, and by no stand-in; a later process takes the verdict."""
    case = CASES["a pack"]
    (tmp_path / case.job.name).symlink_to(folder / case.job.name)
    tried = []

    def try_slots(pack: Callable[[], Pack], run: RunConfig) -> None:
        _check_slots_are_alone(pack, run)
        tried.append(pack().program.form)

    def speed(pack: Pack, _: RunConfig) -> float:
        return 2.0 if is_faster and pack.program.form == "compiled" else 1.0

    monkeypatch.setattr(admission, "_check_slots_are_alone", try_slots)
    monkeypatch.setattr(admission, "_samples_per_second", speed)
    assert verdict(case, tmp_path) is is_faster
    assert tried == ["compiled"]
    monkeypatch.delattr(admission, "_samples_per_second")
    assert verdict(case, tmp_path) is is_faster


def test_the_clock_tells_whether_a_program_pays(folder: Path, tmp_path: Path) -> None:
    case = CASES["a pack"]
    (tmp_path / case.job.name).symlink_to(folder / case.job.name)
    said = verdict(case, tmp_path)
    kept = [json.loads(path.read_text()) for path in tmp_path.glob("*.widths.json")]
    speeds: dict[str, float] = defaultdict(float)
    for one in (one for measured in kept for one in measured):
        speeds[one["form"]] = max(speeds[one["form"]], one["samples_per_s"])
    assert speeds.keys() == {"native", "compiled"}
    assert said is (speeds["compiled"] > speeds["native"])


class Leaky(Pack):
    """What a slot ends an epoch with depends on the first slot."""

    def tick(self, count: int = 1) -> None:
        super().tick(count)
        for stacks in self._memory.state.values():
            for stretch in stacks.stretches_KR:
                stretch[1:] += 1e-6 * stretch[:1]


def test_a_program_whose_slots_are_not_alone_is_refused() -> None:
    case = CASES["a pack"]
    run = case.configs[0]
    _check_slots_are_alone(lambda: Pack(case.spec, case.data, width=4), run)
    with pytest.raises(RuntimeError, match="neighbours"):
        _check_slots_are_alone(lambda: Leaky(case.spec, case.data, width=4), run)
