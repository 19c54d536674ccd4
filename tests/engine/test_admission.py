"""How wide packs are: measured once for a step, kept, and never slower than one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ridgeline.search.engine import (
    Began,
    DeviceData,
    LaneOptions,
    Lanes,
    Mlp,
    RunConfig,
    admission,
)
from ridgeline.search.engine.admission import (
    ROOM,
    Measurement,
    Widths,
    best_width,
    compiled_width,
    prior_width,
)
from ridgeline.search.engine.lane import Lane
from ridgeline.search.engine.program import ProgramIdentity
from ridgeline.search.engine.spec import StepSpec
from tests.engine.sets import CPU, blobs, config, shape_for


class Speeds:
    """Stands in for the clock: what each width comes to, and how often it was asked for."""

    def __init__(self, **samples_per_s: float) -> None:
        self.by_width = {int(name[1:]): speed for name, speed in samples_per_s.items()}
        self.num_calls = 0

    def measure(self, *_: Any, widths: list[int], **__: Any) -> Iterator[Measurement]:
        self.num_calls += 1
        for width in widths:
            yield Measurement(width, "eager", self.by_width.get(width, 1.0), 1)


@pytest.fixture
def data() -> DeviceData:
    return blobs(num_train=50, dtype=torch.float32)


def spec_of(run: RunConfig, data: DeviceData) -> StepSpec:
    return StepSpec.of(run, shape_for(data), data.train.num_samples, "float32")


def table(*speeds: float) -> list[Measurement]:
    return [Measurement(2**i, "eager", speed, 1) for i, speed in enumerate(speeds)]


def test_the_best_width_is_clearly_faster_than_all_narrower_ones() -> None:
    assert best_width(table(10, 9, 8), "eager") == 1
    assert best_width(table(10, 10.4, 10.4), "eager") == 1, "a gain too small to be one"
    assert best_width(table(10, 9, 30, 31), "eager") == 4
    assert best_width(table(10, 20), "compiled") == 1, "nothing is known of those"


def test_a_step_is_measured_once_and_the_next_process_knows(
    data: DeviceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = Speeds(w4=5.0)
    monkeypatch.setattr(admission, "measure", speeds.measure)
    run = config()
    spec = spec_of(run, data)
    widths = Widths(tmp_path)
    assert [widths.best(spec, data, run, limit, 1) for limit in (8, 8, 2, 1)] == [4, 4, 2, 1]
    assert Widths(tmp_path).best(spec, data, run, 8, 1) == 4
    assert speeds.num_calls == 1
    other = config(batch_size=7)
    widths.best(spec_of(other, data), data, other, 8, 1)
    assert speeds.num_calls == 2


@pytest.mark.parametrize(
    "content",
    [
        '[{"width": 4',
        "[" * 100_000,
        "{}",
        '[{"width": "4", "form": "eager", "samples_per_s": 9.0, "bytes": 1}]',
        '[{"width": 3, "form": "eager", "samples_per_s": 9.0, "bytes": 1}]',
        '[{"width": 1, "form": "eager", "samples_per_s": null, "bytes": 1}]',
        '[{"width": 8, "form": "eager", "samples_per_s": NaN, "bytes": 1}]',
    ],
)
def test_a_damaged_file_is_no_measurement(
    data: DeviceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    speeds = Speeds(w4=5.0)
    monkeypatch.setattr(admission, "measure", speeds.measure)
    run = config()
    Widths(tmp_path).best(spec_of(run, data), data, run, 8, 1)
    (file,) = tmp_path.iterdir()
    file.write_text(content)
    assert Widths(tmp_path).best(spec_of(run, data), data, run, 8, 1) == 4
    assert speeds.num_calls == 2


def test_measuring_trains_and_leaves_no_trace(data: DeviceData) -> None:
    run = config(epochs=3, dropout=0.3)
    spec = spec_of(run, data)
    measured = list(admission.measure(spec, data, run, form="eager", widths=[1, 4]))
    assert [m.width for m in measured] == [1, 4]
    assert all(m.samples_per_s > 0 for m in measured)


@pytest.mark.parametrize(("best", "num_runs", "expected"), [(1, 6, 1), (4, 6, 4), (8, 3, 3)])
def test_eager_packs_have_the_measured_width(
    data: DeviceData, monkeypatch: pytest.MonkeyPatch, best: int, num_runs: int, expected: int
) -> None:
    monkeypatch.setattr(admission, "measure", Speeds(**{f"w{best}": 5.0}).measure)
    lanes = Lanes(CPU, LaneOptions())
    for number in range(num_runs):
        lanes.add(number, config(seed=number, epochs=2), shape_for(data), data)
    programs = []
    while not lanes.is_idle:
        programs += [e.program for e in lanes.advance() if isinstance(e, Began)]
    assert len(programs) == num_runs
    assert ProgramIdentity.parse(programs[0]).width == expected


def test_a_lane_that_comes_again_has_room_at_once(
    data: DeviceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where free slots of eager packs cost little."""
    monkeypatch.setattr(admission, "measure", Speeds(w16=5.0).measure)
    monkeypatch.setattr(Lane, "_has_room", True)
    lanes = Lanes(CPU, LaneOptions())
    widths = []
    for num_runs in (2, 1):  # the second of two has the width measured
        for number in range(num_runs):
            lanes.add(number, config(seed=number, epochs=1), shape_for(data), data)
        while not lanes.is_idle:
            began = [e.program for e in lanes.advance() if isinstance(e, Began)]
            widths += [ProgramIdentity.parse(program).width for program in began]
        lanes.advance()  # lets go of the lane
    assert widths == [ROOM["cpu"]] * 3


def test_a_pinned_run_does_not_ask_the_clock(
    data: DeviceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = Speeds(w1=5.0)
    monkeypatch.setattr(admission, "measure", speeds.measure)
    lanes = Lanes(CPU, LaneOptions())
    for number in range(3):
        lanes.add(number, config(seed=number, epochs=1), shape_for(data), data, pinned=True)
    while not lanes.is_idle:
        lanes.advance()
    assert speeds.num_calls == 0


@pytest.mark.parametrize("with_onednn", [True, False])
@pytest.mark.parametrize(("batch_size", "is_packed"), [(64, True), (128, False)])
def test_a_compiled_program_that_keeps_the_processor_busy_has_one_slot(
    batch_size: int, is_packed: bool, with_onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With MKL; with oneDNN it still gains from others."""
    monkeypatch.setattr(admission, "multiplies_with_onednn", lambda *_: with_onednn)
    shape = Mlp(784, (128,), 10)
    spec = StepSpec.of(config(batch_size=batch_size), shape, 54_000, "float32")
    assert prior_width(spec, CPU) > 1
    assert (compiled_width(spec, CPU) > 1) is (is_packed or with_onednn)
    gpu = torch.device("cuda")
    assert compiled_width(spec, gpu) == prior_width(spec, gpu) > 1
