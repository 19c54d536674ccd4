"""Packs that fail: whose fault it is, and what becomes of those who rode along."""

from __future__ import annotations

import collections
import gc
import re
import weakref
from typing import Any

import pytest
import torch

from ridgeline.search.engine import (
    Began,
    DeviceData,
    Failed,
    HandedBack,
    LaneOptions,
    Lanes,
    Mlp,
    Over,
)
from ridgeline.search.engine.pack import Pack
from tests.engine.lane_runs import alone, assert_same, drain, outcomes
from tests.engine.sets import CPU, blobs, config, shape_for

pytestmark = pytest.mark.usefixtures("no_clock")


@pytest.fixture
def data() -> DeviceData:
    return blobs(num_train=50, dtype=torch.float32)


class Breaks:
    """Makes the ticks of packs raise while some run is in them, or while they are too wide."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, seeds: set[int], widest: int | None = None
    ) -> None:
        tick = Pack.tick

        def breaking(pack: Pack, count: int = 1) -> None:
            if widest is not None and pack.width > widest:
                raise torch.OutOfMemoryError("no room")
            inside = {run.config.seed for run in pack._occupants if run is not None}
            if inside & seeds:
                raise RuntimeError("a kernel failed")
            tick(pack, count)

        monkeypatch.setattr(Pack, "tick", breaking)


def test_a_crash_is_bisected_until_the_guilty_one_is_alone(
    data: DeviceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    Breaks(monkeypatch, {5})
    shape = shape_for(data)
    lanes = Lanes(CPU, LaneOptions(width=8))
    runs = {number: config(seed=number) for number in range(8)}
    for number, run in runs.items():
        lanes.add(number, run, shape, data, keep_weights=True)
    tries: collections.Counter[int] = collections.Counter()
    failed, ended = [], {}
    again: list[tuple[int, int]] = []
    while again or not lanes.is_idle:
        if lanes.is_idle:  # so many of those that came back as were said, and nobody else
            again.sort()
            limit = again[0][0]
            for _, key in again[:limit]:
                lanes.add(key, runs[key], shape, data, keep_weights=True)
            del again[:limit]
        for event in lanes.advance():
            match event:
                case Began(key=key):
                    tries[key] += 1
                case HandedBack(key=key, limit=limit):
                    again.append((limit, key))
                case Failed(key=key):
                    failed.append(key)
                case Over(key=key, outcome=outcome):
                    ended[key] = outcome
    assert failed == [5]
    assert sorted(ended) == [0, 1, 2, 3, 4, 6, 7]
    assert max(tries.values()) <= 4  # log2(8) + 1
    monkeypatch.undo()
    for number, outcome in ended.items():
        assert_same(outcome, alone(runs[number], shape, data, width=8))


def test_out_of_memory_halves_the_pack_and_is_remembered(
    data: DeviceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    Breaks(monkeypatch, set(), widest=2)
    shape = shape_for(data)
    lanes = Lanes(CPU, LaneOptions(width=8))
    for number in range(8):
        lanes.add(number, config(seed=number), shape, data, keep_weights=True)
    widths, handed_back, ended = set(), collections.Counter[int](), []
    while not lanes.is_idle:
        for event in lanes.advance():
            match event:
                case HandedBack(key=key, limit=None, error=MemoryError()):
                    handed_back[key] += 1
                    lanes.add(key, config(seed=key), shape, data, keep_weights=True)
                case Over(key=key):
                    ended.append(key)
                case Began(program=program):
                    widths.add(program.split("/")[1])
    assert sorted(ended) == list(range(8))
    assert max(handed_back.values()) <= 3  # log2(8)
    assert widths == {"width=8", "width=4", "width=2"}


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("broken")])
def test_an_error_that_is_kept_does_not_keep_the_pack(
    data: DeviceData, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    packs: list[weakref.ref[Pack]] = []

    def fail(pack: Pack, count: int) -> None:
        packs.append(weakref.ref(pack))
        raise error

    monkeypatch.setattr(Pack, "tick", fail)
    lanes = Lanes(CPU, LaneOptions(width=2))
    lanes.add("a", config(), shape_for(data), data, keep_weights=True)
    lanes.add("b", config(), shape_for(data), data, keep_weights=True)
    gc.disable()  # what is only freed some day is not free for the pack that is made next
    try:
        events = [*lanes.advance(), *lanes.advance()]
        assert [type(event) for event in events] == [Began, Began, HandedBack, HandedBack]
        assert [pack() for pack in packs] == [None]
    finally:
        gc.enable()


def test_a_run_that_does_not_fit_alone_fails(
    data: DeviceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    Breaks(monkeypatch, set(), widest=0)
    lanes = Lanes(CPU, LaneOptions(width=1))
    lanes.add("large", config(), shape_for(data), data, keep_weights=True)
    (event,) = [event for event in drain(lanes) if not isinstance(event, Began)]
    assert isinstance(event, Failed)
    assert isinstance(event.error, MemoryError)


def test_a_run_that_does_not_fit_beside_others_is_tried_alone(
    data: DeviceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Pack.__init__

    def one_at_a_time(pack: Pack, *args: Any, **others: Any) -> None:
        if any(lane.packs for lane in lanes._lanes.values()):
            raise torch.OutOfMemoryError("no room")
        make(pack, *args, **others)

    monkeypatch.setattr(Pack, "__init__", one_at_a_time)
    lanes = Lanes(CPU, LaneOptions(width=1))
    shape = shape_for(data)
    lanes.add("first", config(epochs=3), shape, data, keep_weights=True)
    lanes.add("second", config(epochs=3, batch_size=7), shape, data, keep_weights=True)
    events = drain(lanes)
    assert outcomes(events).keys() == {"first"}
    (handed_back,) = [event for event in events if isinstance(event, HandedBack)]
    assert (handed_back.key, handed_back.limit) == ("second", 1)
    lanes.add("second", config(epochs=3, batch_size=7), shape, data, keep_weights=True)
    assert outcomes(drain(lanes)).keys() == {"second"}


def test_a_pack_that_cannot_be_made_is_made_narrower(
    data: DeviceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Pack.__init__

    def small_only(pack: Pack, *args: Any, width: int, **others: Any) -> None:
        if width > 2:
            raise torch.OutOfMemoryError("no room")
        make(pack, *args, width=width, **others)

    monkeypatch.setattr(Pack, "__init__", small_only)
    lanes = Lanes(CPU, LaneOptions(width=8))
    for number in range(4):
        lanes.add(number, config(seed=number), shape_for(data), data, keep_weights=True)
    events = drain(lanes)
    assert sorted(outcomes(events)) == [0, 1, 2, 3]
    assert not [event for event in events if isinstance(event, HandedBack | Failed)]


@pytest.mark.parametrize(("hidden", "free"), [((65_536,) * 3, None), ((2_000,) * 2, 2**25)])
def test_what_no_memory_holds_fails_alone(
    hidden: tuple[int, ...],
    free: int | None,
    data: DeviceData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first is more than any system gives out, the second more than is free."""
    if free is not None:
        monkeypatch.setattr("ridgeline.search.engine.lanes.free_bytes", lambda _: free)
    small = shape_for(data)
    lanes = Lanes(CPU, LaneOptions(width=1))
    lanes.add("large", config(), Mlp(small.widths[0], hidden, small.widths[-1]), data)
    lanes.add("small", config(), small, data)
    events = drain(lanes)
    (failed,) = (event for event in events if isinstance(event, Failed))
    assert failed.key == "large"
    assert isinstance(failed.error, MemoryError)
    assert re.search(r"takes \d+\.\d GiB, and \d+\.\d GiB are free", str(failed.error))
    assert outcomes(events).keys() == {"small"}
