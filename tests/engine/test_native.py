"""The native kernels: as right as torch, the same bits whoever rides along, and done without."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ridgeline.search.engine import DeviceData, native, rng
from ridgeline.search.engine.memory import PackMemory
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.native_steps import NativeStep
from ridgeline.search.engine.pack import Pack
from ridgeline.search.engine.step import stretches
from tests.engine.program_checks import (
    CASES,
    WIDTH,
    check_that_a_slot_without_a_run_is_frozen,
    check_that_denormals_are_flushed,
    check_that_it_agrees_with_the_plain_loop,
    check_that_neighbours_slots_and_refills_change_no_bit,
)


def native_step(pack: Pack, kernels: Kernels) -> NativeStep:
    """The kernels of the update and of dropout over the tensors of a pack."""
    assert pack._gradients is not None
    regions = stretches(pack._memory, pack._gradients)
    return NativeStep(kernels, pack.spec, pack._memory.inputs(), regions)


@pytest.fixture(params=CASES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_neighbours_slots_and_refills_change_no_bit(name: str, kernels: Kernels) -> None:
    check_that_neighbours_slots_and_refills_change_no_bit(CASES[name], {"kernels": kernels})


def test_a_slot_without_a_run_is_frozen(name: str, kernels: Kernels) -> None:
    check_that_a_slot_without_a_run_is_frozen(CASES[name], {"kernels": kernels})


@pytest.mark.parametrize("name", ["adam64", "sgd64"])
def test_it_agrees_with_the_plain_loop(name: str, kernels: Kernels) -> None:
    check_that_it_agrees_with_the_plain_loop(CASES[name], {"kernels": kernels})


def test_denormals_are_flushed(kernels: Kernels) -> None:
    check_that_denormals_are_flushed(CASES["adam"], {"kernels": kernels})


def test_units_are_dropped_by_the_draws_of_rng(kernels: Kernels) -> None:
    case = CASES["adam"]
    pack = Pack(case.spec, case.data, width=WIDTH, kernels=kernels)
    for slot, config in enumerate(case.configs):
        pack.load(slot, config)
    pack.tick(2)
    memory: PackMemory = pack._memory
    dropped = native_step(pack, kernels).dropout_factors()
    at = (torch.arange(WIDTH), memory.step_K)
    draws = rng.draw(memory.dropout_keys_KS[at], memory.dropout_counters_UB)
    kept = draws >= memory.dropout_thresholds_K1[:, :, None]
    assert torch.equal(dropped != 0, kept)
    for slot, config in enumerate(case.configs):
        assert set(dropped[slot].unique().tolist()) == {
            0.0,
            float(torch.tensor(1 / (1 - config.dropout), dtype=torch.float32)),
        }


def test_an_infinite_weight_without_l2_shows_that_it_diverged(kernels: Kernels) -> None:
    """And not as NaN where a neighbour has l2."""
    case = CASES["adam"]
    pack = Pack(case.spec, case.data, width=WIDTH, kernels=kernels)
    for slot, config in enumerate(case.configs):
        pack.load(slot, config)
    weight = pack._memory.parameters.stretches_KR[0]
    weight[0, 0] = float("inf")
    gradients = pack._gradients
    assert gradients is not None
    pack._writer.prepare_epochs(pack._taken())
    for stretch in gradients.stretches_KR:
        stretch.zero_()
    native_step(pack, kernels).update()
    assert weight[0, 0] == float("inf")
    assert weight[1:].isfinite().all()


def test_a_library_is_compiled_once(tmp_path: Path) -> None:
    assert native.kernels(tmp_path) is not None
    (library,) = tmp_path.iterdir()
    assert library.suffix == ".so"
    made = library.stat().st_mtime_ns
    assert native.kernels(tmp_path) is not None
    assert library.stat().st_mtime_ns == made


def test_a_damaged_library_is_compiled_again(tmp_path: Path) -> None:
    name = native._name()
    assert name is not None
    (tmp_path / name).write_bytes(b"no library")
    assert native.kernels(tmp_path) is not None
    assert (tmp_path / name).stat().st_size > 1_000


@pytest.mark.parametrize("compiler", ["/nowhere/g++", "false", "no program"])
def test_without_a_compiler_that_works_torch_does_it_all(
    compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiler == "no program":
        broken = tmp_path.with_name("broken-compiler")
        broken.write_bytes(b"\x7fELF no program")
        broken.chmod(0o700)
        compiler = str(broken)
    monkeypatch.setenv("CXX", compiler)
    native._name.cache_clear()
    try:
        assert native.kernels(tmp_path) is None
    finally:
        native._name.cache_clear()
    assert not any(tmp_path.iterdir())


def test_tensors_keep_their_places(kernels: Kernels) -> None:
    """The kernels know them by their addresses."""
    case = CASES["sgd-norm"]
    data: DeviceData = case.data
    pack = Pack(case.spec, data, width=WIDTH, kernels=kernels)
    before = {name: tensor.data_ptr() for name, tensor in pack._memory.inputs().items()}
    for slot, config in enumerate(case.configs):
        pack.load(slot, config)
    pack.tick(pack.ticks_to_epoch_end)
    pack.epoch_metrics(range(WIDTH))
    pack.free(1)
    pack.load(1, case.configs[2])
    pack.tick(2)
    assert {n: t.data_ptr() for n, t in pack._memory.inputs().items()} == before


@pytest.mark.parametrize("name", ["adam64", "sgd64"])
def test_the_metrics_are_those_of_torch(name: str, kernels: Kernels) -> None:
    case = CASES[name]
    metrics = []
    for program in ({"kernels": kernels}, {}):
        pack = Pack(case.spec, case.data, width=WIDTH, **program)
        for slot, config in enumerate(case.configs):
            pack.load(slot, config)
        pack.tick(1)
        pack.tick(pack.ticks_to_epoch_end)
        of_epochs = torch.tensor(pack.epoch_metrics(range(WIDTH)), dtype=torch.float64)
        of_tests = pack.test([pack.weights(slot) for slot in range(WIDTH)])
        metrics.append(torch.cat([of_epochs, of_tests], dim=1))
    torch.testing.assert_close(*metrics, rtol=1e-9, atol=0.0)
