"""Runs go on from checkpoints in other packs, slots and processes, to the same bits."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from ridgeline.search.engine import (
    Began,
    DeviceData,
    LaneOptions,
    Lanes,
    Mlp,
    Over,
    PruningRules,
    Reported,
    RunConfig,
    Saved,
    saving,
)
from ridgeline.search.engine.checkpoint import load_checkpoint, save_checkpoint
from ridgeline.search.predicting import Prediction
from tests.engine.lane_runs import assert_same, drain, outcomes
from tests.engine.sets import CPU, blobs, config, shape_for

pytestmark = pytest.mark.usefixtures("no_clock")

EPOCHS = 6

VARIETY: dict[str, list[dict[str, Any]]] = {
    "adam": [
        {"dropout": 0.3, "patience": 2, "learning_rate": 0.1, "max_norm": 0.5},
        {"dropout": 0.1, "l1": 0.02, "l1_update": "proximal", "warmup": 0.2},
        {"dropout": 0.5, "l2": 0.02, "weight_decay": 0.1, "schedule": "cosine"},
    ],
    "sgd": [
        {"momentum": 0.9, "nesterov": True, "clip_norm": 0.5, "patience": 3},
        {
            "momentum": 0.9,
            "clip_norm": 0.1,
            "schedule": "one_cycle",
            "l1": 0.01,
            "input_dropout": 0.2,
            "label_smoothing": 0.1,
            "gradient_noise": 0.01,
        },
        {"clip_norm": 9.0, "l1": 0.02, "l1_update": "proximal", "schedule": "step"},
    ],
}
"""Of runs that share a lane."""


@pytest.fixture(params=["eager", "native"])
def options(request: pytest.FixtureRequest, kernels_folder: Path) -> LaneOptions:
    eager = LaneOptions(width=4, compile=False, save_seconds=0)
    return eager if request.param == "eager" else replace(eager, compile=True, cache=kernels_folder)


@pytest.fixture
def data() -> DeviceData:
    return blobs(num_train=50, dtype=torch.float32)


class Told:
    """What lanes told of runs, by key."""

    def __init__(self, events: list[Any]) -> None:
        self.programs = {e.key: e.program for e in events if isinstance(e, Began)}
        self.outcomes = outcomes(events)
        self.reports: dict[Any, list[Any]] = defaultdict(list)
        self.saved: dict[Any, dict[int, bytes]] = defaultdict(dict)
        for event in events:
            if isinstance(event, Reported):
                self.reports[event.key].append(event.report)
            elif isinstance(event, Saved):
                assert self.reports[event.key][-1].epoch == event.epoch, "told right after it"
                self.saved[event.key][event.epoch] = event.content


def train(
    options: LaneOptions,
    configs: Mapping[Any, RunConfig],
    shape: Mlp,
    data: DeviceData,
    checkpoints: Mapping[Any, bytes] | None = None,
    **more: Any,
) -> Told:
    lanes = Lanes(CPU, options)
    for key, run in configs.items():
        checkpoint = (checkpoints or {}).get(key)
        lanes.add(key, run, shape, data, keep_weights=True, checkpoint=checkpoint, **more)
    return Told(drain(lanes))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("optimizer", VARIETY)
def test_a_run_goes_on_from_any_epoch_to_the_same_bits(
    options: LaneOptions, data: DeviceData, optimizer: Any, batch_norm: bool
) -> None:
    shape = shape_for(data, hidden=(9, 5), batch_norm=batch_norm)
    configs = {
        seed: config(seed=seed, epochs=EPOCHS, optimizer=optimizer, **changes)
        for seed, changes in enumerate(VARIETY[optimizer])
    }
    whole = train(options, configs, shape, data)
    cuts = [(seed, epoch) for seed in configs for epoch in whole.saved[seed]]
    for seed in configs:
        last = whole.outcomes[seed].epochs_trained
        assert [*whole.saved[seed]] == list(range(1, last)), "each epoch but the last"
    # All at once, in an order of their own, among others that begin: so in any slot and pack.
    Random(0).shuffle(cuts)
    again = {cut: configs[cut[0]] for cut in cuts}
    others = {n: replace(configs[0], seed=90 + n, epochs=1 + n % 4) for n in range(5)}
    rest = train(
        options,
        {**dict(list(again.items())[:7]), **others, **again},
        shape,
        data,
        {(seed, epoch): whole.saved[seed][epoch] for seed, epoch in cuts},
    )
    for seed, epoch in cuts:
        key = (seed, epoch)
        assert rest.programs[key] == whole.programs[seed]
        assert rest.reports[key] == whole.reports[seed][epoch:]
        assert rest.saved[key] == {
            later: content for later, content in whole.saved[seed].items() if later > epoch
        }
        assert_same(rest.outcomes[key], whole.outcomes[seed])


SCRIPT = """
import json, sys
from pathlib import Path
import torch
from ridgeline.search.engine import LaneOptions, Lanes, Over
from tests.engine.sets import CPU, blobs, config, shape_for

cache, checkpoint, changes = sys.argv[1:]
data = blobs(num_train=50, dtype=torch.float32)
lanes = Lanes(CPU, LaneOptions(width=4, cache=Path(cache)))
run = config(**json.loads(changes))
shape = shape_for(data, hidden=(9, 5))
lanes.add(0, run, shape, data, checkpoint=Path(checkpoint).read_bytes())
while not lanes.is_idle:
    for event in lanes.advance():
        if isinstance(event, Over):
            print(json.dumps([event.outcome.epochs_trained, event.outcome.metrics]))
"""


def test_a_run_goes_on_in_another_process(
    data: DeviceData, kernels_folder: Path, tmp_path: Path
) -> None:
    changes = {"epochs": EPOCHS, "dropout": 0.3, "patience": 4}
    options = LaneOptions(width=4, cache=kernels_folder, save_seconds=0)
    whole = train(options, {0: config(**changes)}, shape_for(data, hidden=(9, 5)), data)
    (tmp_path / "checkpoint").write_bytes(whole.saved[0][3])
    script = [sys.executable, "-c", SCRIPT, str(kernels_folder), str(tmp_path / "checkpoint")]
    told = subprocess.run([*script, json.dumps(changes)], capture_output=True, check=True).stdout
    assert json.loads(told) == [whole.outcomes[0].epochs_trained, whole.outcomes[0].metrics]


def changed(content: bytes, **changes: Any) -> bytes:
    """A checkpoint that is whole, with other metadata."""
    tensors, metadata = load_checkpoint(content)
    return save_checkpoint(tensors, {**metadata, **changes})


def changed_program(content: bytes, old: str, new: str) -> bytes:
    _, metadata = load_checkpoint(content)
    assert old in metadata["program"]
    return changed(content, program=metadata["program"].replace(old, new))


def lacking(content: bytes, name: str) -> bytes:
    tensors, metadata = load_checkpoint(content)
    del metadata[name]
    return save_checkpoint(tensors, metadata)


@pytest.mark.parametrize(
    ("altered", "reason"),
    [
        (lambda content: b"", "not a checkpoint"),
        (lambda content: content[:-1], "damaged"),
        (lambda content: content[:400] + bytes([content[400] ^ 1]) + content[401:], "damaged"),
        (lambda content: save_checkpoint({}, {}), "another config"),
        (lambda content: changed(content, data="x"), "another data"),
        (lambda content: changed(content, stopping={}), "no sense"),
        (lambda content: changed(content, epochs_done=99), "no sense"),
        (lambda content: changed(content, program="mine"), "no sense"),
        (lambda content: changed(content, is_over=True), "its end"),
        (lambda content: lacking(content, "kept_metrics"), "no sense"),
        (lambda content: changed_program(content, "torch=", "torch=0."), "here is no"),
        (lambda content: changed_program(content, "width=4", "width=8"), "here is no"),
        (lambda content: changed_program(content, "eager", "native"), "here is no"),
        (lambda content: changed_program(content, "eager", "compiled"), "here is no"),
        (lambda content: changed_program(content, "flushed", "kept"), "here is no"),
        (lambda content: changed_program(content, "numerics=", "numerics=9"), "here is no"),
    ],
)
def test_a_run_that_cannot_go_on_begins_anew(
    data: DeviceData,
    caplog: pytest.LogCaptureFixture,
    altered: Callable[[bytes], bytes],
    reason: str,
) -> None:
    caplog.set_level(logging.INFO)
    options, shape = LaneOptions(width=4, compile=False, save_seconds=0), shape_for(data)
    configs = {0: config(epochs=4)}
    whole = train(options, configs, shape, data)
    assert not caplog.messages
    rest = train(options, configs, shape, data, {0: altered(whole.saved[0][2])})
    (message,) = caplog.messages
    assert "begins anew" in message
    assert reason in message
    assert rest.programs == whole.programs
    assert rest.reports == whole.reports
    assert_same(rest.outcomes[0], whole.outcomes[0])


def test_a_checkpoint_of_another_configuration_is_not_taken(
    data: DeviceData, caplog: pytest.LogCaptureFixture
) -> None:
    options, shape = LaneOptions(width=4, compile=False, save_seconds=0), shape_for(data)
    one, other = config(epochs=4), config(epochs=4, learning_rate=0.02)
    whole = train(options, {0: one, 1: other}, shape, data)
    rest = train(options, {1: other}, shape, data, {1: whole.saved[0][2]})
    assert "another config" in caplog.text
    assert rest.reports[1] == whole.reports[1]
    assert_same(rest.outcomes[1], whole.outcomes[1])


@pytest.mark.parametrize("pinned", [False, True])
def test_the_program_of_a_checkpoint_comes_before_that_of_a_run_that_begins(
    data: DeviceData, kernels_folder: Path, pinned: bool
) -> None:
    """Whatever waits beside, and though packs of runs that begin have other widths and forms."""
    options = LaneOptions(cache=kernels_folder, save_seconds=0)
    shape = shape_for(data)
    configs = {seed: config(seed=seed, epochs=4) for seed in range(5)}
    whole = train(options, configs, shape, data, pinned=pinned)
    eager = train(replace(options, compile=False), configs, shape, data, pinned=pinned)
    if not pinned:
        assert all(program.startswith("native/width=8/") for program in whole.programs.values())
    checkpoints = {3: whole.saved[3][2], "eager": eager.saved[3][1]}
    others = {f"other {n}": config(seed=70 + n, epochs=1 + n % 3) for n in range(9)}
    rest = train(
        options,
        {**others, 3: configs[3], "eager": configs[3]},
        shape,
        data,
        checkpoints,
        pinned=pinned,
    )
    assert rest.programs[3] == whole.programs[3]
    assert rest.programs["eager"] == eager.programs[3]
    assert_same(rest.outcomes[3], whole.outcomes[3])
    assert_same(rest.outcomes["eager"], eager.outcomes[3])
    assert rest.outcomes.keys() == {*others, 3, "eager"}


def test_runs_of_many_programs_go_on_though_others_keep_coming(
    data: DeviceData, kernels_folder: Path
) -> None:
    """More slots than there is room for: none waits for ever, and each has its own program."""
    shape = shape_for(data)
    options = LaneOptions(cache=kernels_folder, save_seconds=0, memory_bytes=30_000)
    saved: dict[Any, tuple[RunConfig, Told, int]] = {}
    for num_runs in (1, 2, 3, 4):
        configs = {(num_runs, n): config(seed=n, epochs=5) for n in range(num_runs)}
        told = train(replace(options, width=num_runs), configs, shape, data)
        saved |= {key: (run, told, 1 + key[1]) for key, run in configs.items()}
    programs = {told.programs[key] for key, (_, told, _) in saved.items()}
    assert len(programs) == 4

    lanes = Lanes(CPU, options)
    number = 0

    def come() -> None:
        nonlocal number
        number += 1
        lanes.add(number, config(seed=number, epochs=2), shape, data, keep_weights=True)

    for _ in range(6):
        come()
    events = lanes.advance()
    for key, (run, told, epoch) in saved.items():
        content = told.saved[key][epoch]
        lanes.add(key, run, shape, data, keep_weights=True, checkpoint=content)
    left = {*saved}
    for _ in range(2_000):
        if not left:
            break
        news = lanes.advance()
        events += news
        for event in news:
            if isinstance(event, Over):
                left.discard(event.key)
                come()  # so that no pack is ever without a run that begins
    assert not left
    rest = Told(events)
    for key, (_, told, epoch) in saved.items():
        assert rest.programs[key] == told.programs[key]
        assert rest.reports[key] == told.reports[key][epoch:]
        assert_same(rest.outcomes[key], told.outcomes[key])


def test_a_run_that_goes_on_is_pruned_by_all_it_has_gained(data: DeviceData) -> None:
    """The prediction at epoch 3 is from epoch 1, which another device has seen."""
    shape = shape_for(data)
    prediction = Prediction(since=1, weight=1e6)
    rules = PruningRules(1, "validation_loss", "minimize", {3: -10.0}, {3: prediction})
    chosen = config(epochs=6, monitor="validation_loss", direction="minimize")
    ends = []
    content: bytes | None = None
    for _ in range(2):
        lanes = Lanes(CPU, LaneOptions(width=1, compile=False, save_seconds=0))
        lanes.set_rules("a", rules)
        lanes.add("a", chosen, shape, data, group="a", checkpoint=content)
        told = Told(drain(lanes))
        ends.append(told.outcomes["a"])
        content = content or told.saved["a"][2]
    reports = told.reports["a"]
    assert [report.epoch for report in reports] == [3, 4, 5, 6]  # it gains, so it goes on
    assert_same(ends[0], ends[1])


def test_runs_are_saved_at_rungs(data: DeviceData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "RUNG_SHARE", 0.0)
    monkeypatch.setattr(saving, "MAX_SHARE", 1e9)
    lanes = Lanes(CPU, LaneOptions(width=2, compile=False, save_seconds=1e9))
    shape = shape_for(data)
    thresholds = {2: 0.0, 3: 0.0, 6: 0.0, 7: 2.0}
    lanes.set_rules("a", PruningRules(1, "validation_accuracy", "maximize", thresholds))
    lanes.add("a", config(epochs=9), shape, data, group="a")
    lanes.add("b", config(epochs=9), shape, data, group="b")
    told = Told(drain(lanes))
    assert told.outcomes["a"].state == "pruned"
    assert {key: [*saved] for key, saved in told.saved.items()} == {"a": [2, 3, 6]}


def test_a_run_that_is_saved_ends_as_one_that_is_not(data: DeviceData) -> None:
    shape = shape_for(data, batch_norm=True)
    configs = {seed: config(seed=seed, epochs=5, patience=2) for seed in range(6)}
    options = LaneOptions(width=4, compile=False, save_seconds=0)
    saved = train(options, configs, shape, data)
    unsaved = train(replace(options, save_seconds=None), configs, shape, data)
    assert saved.saved
    assert not unsaved.saved
    for seed in configs:
        assert_same(saved.outcomes[seed], unsaved.outcomes[seed])


def test_a_run_is_due_after_its_seconds_and_sooner_at_a_rung() -> None:
    runs = saving.Saving(10.0)
    runs.begin("a", 100.0)
    assert not runs.is_due("a", 100.9, at_rung=True)
    assert runs.is_due("a", 101.0, at_rung=True)
    assert not runs.is_due("a", 109.9, at_rung=False)
    assert runs.is_due("a", 110.0, at_rung=False)
    runs.saved("a", 110.0, 110.001)
    assert not runs.is_due("a", 120.0, at_rung=False)
    assert runs.is_due("a", 120.002, at_rung=False)


def test_saving_takes_a_small_share_of_the_time() -> None:
    runs = saving.Saving(10.0)
    for key in range(8):
        runs.begin(key, 0.0)
    runs.saved(0, 10.0, 11.0)  # held up
    runs.saved(1, 11.0, 11.25)
    spacing = 8 * 0.25 / saving.MAX_SHARE
    for at_rung in (False, True):
        assert not runs.is_due(1, 11.25 + spacing - 0.1, at_rung=at_rung)
        assert runs.is_due(1, 11.25 + spacing + 0.1, at_rung=at_rung)
    runs.end(0)  # fewer are saved the more often
    assert runs.is_due(1, 11.25 + spacing - 0.1, at_rung=False)


def test_runs_can_be_saved_at_each_epoch_and_never() -> None:
    always, never = saving.Saving(0), saving.Saving(None)
    for runs in (always, never):
        runs.begin("a", 0.0)
        runs.saved("a", 0.0, 1e6)
        assert runs.is_due("a", 1e6, at_rung=False) is (runs is always)
        assert runs.is_due("a", 1e9, at_rung=True) is (runs is always)
