"""Runs in lanes: every run ends once, to the bits that it comes to alone, whatever happens."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ridgeline.search.engine import (
    Began,
    DeviceData,
    LaneOptions,
    Lanes,
    Mlp,
    Outcome,
    Over,
    PruningRules,
    Reported,
    RunConfig,
    Saved,
    open_pack,
    slots,
)
from ridgeline.search.engine.compiled import Job
from ridgeline.search.engine.config import OptimizerName
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.pack import Pack, Weights
from ridgeline.search.engine.programs import Programs
from tests.engine.lane_runs import WIDTH, alone, assert_same, drain, outcomes
from tests.engine.sets import CPU, blobs, config, shape_for, step_spec

pytestmark = pytest.mark.usefixtures("no_clock")


@pytest.fixture
def data() -> DeviceData:
    return blobs(num_train=50, dtype=torch.float32)


def test_slots_are_refilled_and_nothing_shows(data: DeviceData) -> None:
    shape = shape_for(data, hidden=(9,))
    configs = {
        number: config(
            seed=number,
            epochs=1 + number % 5,
            batch_size=(16, 23)[number % 2],
            optimizer=("adam", "sgd")[number % 3 == 0],
            dropout=(0.0, 0.4)[number % 4 == 0],
            learning_rate=1e6 if number == 7 else 0.01,
            patience=2 if number % 2 else None,
        )
        for number in range(24)
    }
    lanes = Lanes(CPU, LaneOptions(width=WIDTH))
    for number, run in configs.items():
        lanes.add(number, run, shape, data, keep_weights=True)
    events = drain(lanes)
    began = [event.key for event in events if isinstance(event, Began)]
    assert sorted(began) == list(configs)
    ended = outcomes(events)
    assert ended.keys() == configs.keys()
    for number, run in configs.items():
        assert_same(ended[number], alone(run, shape, data))
        reports = [e.report.epoch for e in events if isinstance(e, Reported) and e.key == number]
        assert reports == list(range(1, ended[number].epochs_trained + 1))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_run_that_diverges_leaves_nothing_in_its_slot(
    data: DeviceData, optimizer: OptimizerName
) -> None:
    shape = shape_for(data, hidden=(9,))
    clipped = config(epochs=3, optimizer=optimizer, clip_norm=1.0)
    lanes = Lanes(CPU, LaneOptions(width=2))
    lanes.add("long", replace(clipped, epochs=20), shape, data, keep_weights=True)
    lanes.add(
        "bad",
        replace(clipped, learning_rate=1e30, weight_decay=1e30),
        shape,
        data,
        keep_weights=True,
    )
    for seed in range(3):
        lanes.add(seed, replace(clipped, seed=seed), shape, data, keep_weights=True)
    ended = outcomes(drain(lanes))
    assert ended["bad"].state == "diverged"
    for seed in range(3):
        assert_same(ended[seed], alone(replace(clipped, seed=seed), shape, data, width=2))


def test_a_freed_slot_is_taken_while_the_others_train(data: DeviceData) -> None:
    lanes = Lanes(CPU, LaneOptions(width=2))
    shape = shape_for(data)
    lanes.add("long", config(epochs=50), shape, data, keep_weights=True)
    for number in range(6):
        lanes.add(number, config(epochs=2, seed=number), shape, data, keep_weights=True)
    events = drain(lanes)
    order = [event.key for event in events if isinstance(event, Over)]
    assert order == [0, 1, 2, 3, 4, 5, "long"]


def test_idle_slots_are_those_of_packs_in_training(data: DeviceData) -> None:
    lanes = Lanes(CPU, LaneOptions(width=4))
    shape = shape_for(data)
    lanes.add("long", config(epochs=3), shape, data, keep_weights=True)
    lanes.add("short", config(epochs=1), shape, data, keep_weights=True)
    lanes.add("other", config(epochs=1, batch_size=7), shape, data, keep_weights=True)
    assert lanes.num_idle == 0
    idle = []
    while not lanes.is_idle:
        lanes.advance()
        idle.append(lanes.num_idle)
    assert idle[0] == 2 + 3
    assert max(idle) == 3 + 3
    assert idle[-2:] == [3, 0]


def test_a_run_can_be_taken_out_at_any_time(data: DeviceData) -> None:
    lanes = Lanes(CPU, LaneOptions(width=2))
    shape = shape_for(data)
    for number in range(4):
        lanes.add(number, config(epochs=20, seed=number), shape, data, keep_weights=True)
    lanes.advance()
    assert lanes.remove(0)  # it trains
    assert lanes.remove(3)  # it waits
    assert not lanes.remove(0)
    ended = outcomes(drain(lanes))
    assert sorted(ended) == [1, 2]
    assert_same(ended[1], alone(config(epochs=20, seed=1), shape, data, width=2))


def test_rules_prune_at_the_epoch(data: DeviceData) -> None:
    lanes = Lanes(CPU, LaneOptions(width=2))
    shape = shape_for(data)
    lanes.set_rules("a", PruningRules(5, "validation_accuracy", "maximize", {2: 1.1}))
    for group in ("a", "b"):
        lanes.add(group, config(epochs=6), shape, data, group=group, keep_weights=True)
    ended = outcomes(drain(lanes))
    assert (ended["a"].state, ended["a"].epochs_trained, ended["a"].rule_version) == (
        "pruned",
        2,
        5,
    )
    assert ended["a"].value == ended["a"].metrics["validation_accuracy"]
    assert (ended["b"].state, ended["b"].rule_version) == ("complete", None)
    assert (ended["a"].measures, ended["b"].measures is None) == (None, False)


def test_rules_are_those_of_the_bracket(data: DeviceData) -> None:
    lanes = Lanes(CPU, LaneOptions(width=2))
    shape = shape_for(data)
    for bracket in (0, 1):
        rules = PruningRules(5, "validation_accuracy", "maximize", {2 + bracket: 1.1})
        lanes.set_rules("a", rules, bracket=bracket)
        lanes.add(bracket, config(epochs=6), shape, data, group="a", bracket=bracket)
    ended = outcomes(drain(lanes))
    assert {key: its.epochs_trained for key, its in ended.items()} == {0: 2, 1: 3}


@pytest.mark.parametrize(("num_following", "hurries"), [(0, False), (10_000, True)])
def test_a_program_is_made_in_a_hurry_where_runs_save_as_much(
    data: DeviceData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_following: int,
    hurries: bool,
) -> None:
    """By what is at hand and what its study has still to come; a tick takes a second here."""
    requests: list[tuple[Job, bool]] = []
    monkeypatch.setattr(Programs, "request", lambda _, job, *, hurry: requests.append((job, hurry)))
    lanes = Lanes(CPU, LaneOptions(width=2, cache=tmp_path))
    shape = shape_for(data, batch_norm=True)  # which the native steps leave to a compiler
    lanes.add(
        "run",
        config(epochs=3),
        shape,
        data,
        group="study",
        num_following=num_following,
        keep_weights=True,
    )
    drain(lanes)
    spec = step_spec(config(), shape, data)
    assert {job for job, _ in requests} == {Job.of(spec, data, threads=1)}
    assert any(hurry for _, hurry in requests) is hurries


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("nothing is to be compiled")


def form_of_a_long_study(data: DeviceData, options: LaneOptions) -> str:
    """Of the program that trains a run of a study that has many more to come."""
    lanes = Lanes(CPU, options)
    lanes.add(
        "run",
        config(epochs=3),
        shape_for(data),
        data,
        group="study",
        num_following=10_000,
        keep_weights=True,
    )
    (began,) = [event for event in drain(lanes) if isinstance(event, Began)]
    return began.program.partition("/")[0]


def test_nothing_is_compiled_where_native_steps_are_at_hand(
    data: DeviceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Programs, "request", refuse)
    assert form_of_a_long_study(data, LaneOptions(width=2, cache=tmp_path)) == "native"


def test_without_compiling_no_program_is_asked_for(
    data: DeviceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Programs, "request", refuse)
    monkeypatch.setattr("ridgeline.search.engine.native.kernels", refuse)
    options = LaneOptions(width=2, compile=False, cache=tmp_path)
    assert form_of_a_long_study(data, options) == "eager"


def test_memory_bounds_the_width(data: DeviceData) -> None:
    lanes = Lanes(CPU, LaneOptions(width=64, memory_bytes=100_000))
    lanes.add("run", config(), shape_for(data), data, keep_weights=True)
    (began,) = [event for event in drain(lanes) if isinstance(event, Began)]
    assert int(began.program.split("/")[1].removeprefix("width=")) < 64


def test_a_shape_that_does_not_fit_the_data_is_refused(data: DeviceData) -> None:
    lanes = Lanes(CPU, LaneOptions())
    with pytest.raises(ValueError, match="samples of shape"):
        lanes.add("run", config(), Mlp(5, (), 3), data)
    assert lanes.is_idle


DATA = blobs(num_train=40, dtype=torch.float32)
SHAPE = shape_for(DATA, hidden=(5,))


class SlotTable(RuleBasedStateMachine):
    """Runs come, train, are taken out and break packs; against a plain dict of what each is at."""

    width = 2
    cache: ClassVar[Path | None] = None
    kernels: ClassVar[Kernels | None] = None
    alone: ClassVar[dict[RunConfig, Outcome]] = {}

    @initialize()
    def start(self) -> None:
        options = LaneOptions(width=self.width, cache=self.cache, save_seconds=0)
        self.lanes = Lanes(CPU, options)
        self.saved: dict[int, bytes] = {}
        self.number = 0
        self.open: dict[int, RunConfig] = {}
        self.training: set[int] = set()

    @rule(epochs=st.integers(1, 3), batch_size=st.sampled_from([16, 20]))
    def add(self, epochs: int, batch_size: int) -> None:
        run = config(
            seed=self.number % 5,
            epochs=epochs,
            batch_size=batch_size,
            dropout=0.3 if batch_size == 20 else 0.0,
        )
        self.lanes.add(self.number, run, SHAPE, DATA, keep_weights=True)
        self.open[self.number] = run
        self.number += 1

    @precondition(lambda self: self.open)
    @rule(choice=st.data())
    def remove(self, choice: st.DataObject) -> None:
        number = choice.draw(st.sampled_from(sorted(self.open)))
        assert self.lanes.remove(number)
        del self.open[number]
        self.training.discard(number)

    @precondition(lambda self: self.saved)
    @rule(choice=st.data())
    def go_on(self, choice: st.DataObject) -> None:
        """Take a run out, and in again from where it was saved; it may have ended since."""
        number = choice.draw(st.sampled_from(sorted(self.saved)))
        content = self.saved.pop(number)
        if number in self.open:
            run = self.open[number]
            assert self.lanes.remove(number)
            self.lanes.add(number, run, SHAPE, DATA, keep_weights=True, checkpoint=content)
            self.training.discard(number)

    @precondition(lambda self: self.open)
    @rule()
    def advance(self) -> None:
        for event in self.lanes.advance():
            assert event.key in self.open
            match event:
                case Began(key=key):
                    assert key not in self.training, "a run begins once"
                    self.training.add(key)
                case Over(key=key, outcome=outcome):
                    self.training.remove(key)
                    run = self.open.pop(key)
                    if run not in self.alone:
                        self.alone[run] = alone(run, SHAPE, DATA, self.width, self.kernels)
                    assert_same(outcome, self.alone[run])
                case Reported(key=key):
                    assert key in self.training
                case Saved(key=key, content=content):
                    assert key in self.training
                    self.saved[key] = content
                case _:
                    raise AssertionError(event)

    @invariant()
    def every_run_is_in_one_place(self) -> None:
        assert self.lanes.num_open == len(self.open)
        held = [
            (key, index, slot)
            for key, one in self.lanes._lanes.items()
            for index, open_pack in enumerate(one.packs)
            for slot in open_pack.runs
        ]
        assert len(held) == len(set(held)) == len(self.training)
        assert self.lanes.is_idle == (not self.open)

    def teardown(self) -> None:
        if hasattr(self, "lanes"):
            for _ in range(1_000):
                if self.lanes.is_idle:
                    break
                self.advance()
            assert not self.open, "refill always progresses"


class NativeSlotTable(SlotTable):
    """Runs of native steps, which move to other slots when nothing waits."""

    width = 4
    alone: ClassVar[dict[RunConfig, Outcome]] = {}


SlotTable.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
NativeSlotTable.TestCase.settings = SlotTable.TestCase.settings
TestSlotTable = SlotTable.TestCase


@pytest.fixture
def native_runs(kernels_folder: Path, kernels: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NativeSlotTable, "cache", kernels_folder)
    monkeypatch.setattr(NativeSlotTable, "kernels", kernels)


@pytest.mark.usefixtures("native_runs")
class TestNativeSlotTable(NativeSlotTable.TestCase):  # type: ignore[name-defined, misc]
    pass


def test_data_that_were_loaded_anew_share_the_lane(data: DeviceData) -> None:
    again = blobs(num_train=50, dtype=torch.float32)
    assert again is not data
    other = blobs(num_train=50, dtype=torch.float32, seed=1)
    lanes, shape = Lanes(CPU, LaneOptions(width=WIDTH)), shape_for(data)
    for number, one in enumerate((data, again, other)):
        lanes.add(number, config(seed=number), shape, one, keep_weights=True)
    assert [len(lane.waiting) for lane in lanes._lanes.values()] == [2, 1]
    ended = outcomes(drain(lanes))
    for number, one in enumerate((data, again, other)):
        assert_same(ended[number], alone(config(seed=number), shape, one))


def test_weights_are_copied_only_for_those_who_keep_them(
    data: DeviceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[Weights] = []
    named = Pack.named

    def recorded(pack: Pack, weights: Weights) -> dict[str, torch.Tensor]:
        copied.append(weights)
        return named(pack, weights)

    monkeypatch.setattr(Pack, "named", recorded)
    lanes, shape = Lanes(CPU, LaneOptions(width=WIDTH)), shape_for(data)
    for number in range(3):
        lanes.add(number, config(seed=number), shape, data, keep_weights=number == 1)
    ended = outcomes(drain(lanes))
    assert len(copied) == 1
    assert {n for n, outcome in ended.items() if outcome.weights} == {1}
    assert all("test_accuracy" in outcome.metrics for outcome in ended.values())


def test_tables_made_ahead_are_those_of_each_epoch(
    data: DeviceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the run ends before they are used up, or its epochs are no multiple of theirs."""
    shape = shape_for(data, hidden=(8,))
    runs = [config(seed=seed, epochs=epochs, dropout=0.3) for seed, epochs in ((1, 11), (2, 3))]
    ahead = [alone(run, shape, data) for run in runs]
    monkeypatch.setattr(slots, "_EPOCHS_AHEAD", 1)
    for run, outcome in zip(runs, ahead, strict=True):
        assert_same(outcome, alone(run, shape, data))


def test_a_new_pack_trains_to_the_end_of_an_epoch_once_its_speed_is_known(
    data: DeviceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(perf_counter=count(step=0.001).__next__)  # turns last many calls
    monkeypatch.setattr(open_pack, "time", clock)
    ticks: list[int] = []
    tick = Pack.tick

    def counted(pack: Pack, number: int) -> None:
        ticks.append(number)
        tick(pack, number)

    monkeypatch.setattr(Pack, "tick", counted)
    run = config(batch_size=4, epochs=2)
    lanes = Lanes(data.device, LaneOptions(compile=False, width=1))
    lanes.add("run", run, shape_for(data, hidden=(8,)), data)
    drain(lanes)
    num_steps = math.ceil(data.train.num_samples / 4)
    assert ticks == [4, num_steps - 4, num_steps]
