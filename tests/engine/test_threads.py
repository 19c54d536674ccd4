"""Threads that train: how many a step takes, what becomes of denormals, who trains at once."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch

from ridgeline.search.engine import (
    Began,
    DeviceData,
    LaneOptions,
    Lanes,
    Mlp,
    Over,
    RunConfig,
)
from ridgeline.search.engine.pack import Pack
from ridgeline.search.engine.threads import (
    BUSY_FLOPS,
    Crew,
    can_flush_denormals,
    computing,
    threads_for_step,
)
from tests.engine.lane_runs import alone, assert_same, drain, outcomes
from tests.engine.program_checks import CASES, WIDTH, check_that_denormals_are_flushed
from tests.engine.sets import CPU, blobs, config, shape_for

TINY = torch.finfo(torch.float32).tiny


def num_denormals(tensor: torch.Tensor) -> int:
    """By their bits: to a thread that flushes, a denormal equals 0."""
    magnitude = tensor.view(torch.int32) & 0x7FFFFFFF
    return int(((magnitude > 0) & (magnitude < 0x00800000)).sum())


def test_denormals_are_flushed_within_and_kept_again_after() -> None:
    assert can_flush_denormals(CPU)
    smallest = torch.full((64,), TINY)
    assert num_denormals(smallest * 0.5) == 64
    with computing(1):
        assert num_denormals(smallest * 0.5) == 0
        with computing(1):
            pass
        assert num_denormals(smallest * 0.5) == 0
    assert num_denormals(smallest * 0.5) == 64


def test_every_thread_of_an_operation_flushes() -> None:
    """Those that the thread of a crew starts inherit it."""
    many = torch.full((4_000_000,), TINY)

    def halves() -> int:
        with computing(2):
            assert torch.get_num_threads() == 2
            return num_denormals(many * 0.5)

    job: Future[int] = Crew(1).start(halves)
    assert job.result() == 0


def test_a_device_that_is_no_cpu_is_left_alone() -> None:
    gpu = torch.device("cuda")
    assert not can_flush_denormals(gpu)
    assert threads_for_step(1e12, gpu, 8) == 0
    with computing(0):
        assert num_denormals(torch.full((64,), TINY) * 0.5) == 64


def test_cudnn_keeps_to_one_order_of_adding_up_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "deterministic", False)
    monkeypatch.setattr(cudnn, "benchmark", True)
    with computing(0):
        assert (cudnn.deterministic, cudnn.benchmark) == (True, False)
    assert (cudnn.deterministic, cudnn.benchmark) == (False, True)


def test_steps_that_keep_several_threads_busy_get_them_all() -> None:
    assert threads_for_step(BUSY_FLOPS / 2, CPU, 8) == 1
    assert threads_for_step(BUSY_FLOPS, CPU, 8) == 8


def test_no_pack_leaves_denormals_in_its_slots() -> None:
    check_that_denormals_are_flushed(CASES["adam"], {})


@pytest.fixture
def data() -> DeviceData:
    return blobs(num_train=50, dtype=torch.float32)


def test_packs_train_side_by_side_to_the_bits_they_come_to_alone(data: DeviceData) -> None:
    lanes = Lanes(CPU, LaneOptions(width=WIDTH, threads=3))
    shape = shape_for(data, hidden=(9,))
    runs = {n: config(seed=n, epochs=1 + n % 7, batch_size=(16, 23, 50)[n % 3]) for n in range(40)}
    for number, run in runs.items():
        lanes.add(number, run, shape, data, keep_weights=True)
    events = drain(lanes)
    assert sorted(e.key for e in events if isinstance(e, Began)) == list(runs)
    ended = outcomes(events)
    assert ended.keys() == runs.keys()
    for number, run in runs.items():
        assert_same(ended[number], alone(run, shape, data, width=WIDTH))


class Meeting:
    """Stands in for training: a turn lasts until as many packs as expected have theirs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, parties: int) -> None:
        self._barrier = threading.Barrier(parties, timeout=30)
        tick = Pack.tick

        def meet(pack: Pack, count: int) -> None:
            self._barrier.wait()
            tick(pack, count)

        monkeypatch.setattr(Pack, "tick", meet)


def test_two_packs_of_one_lane_have_their_turns_at_once(
    data: DeviceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    Meeting(monkeypatch, parties=2)
    lanes = Lanes(CPU, LaneOptions(compile=False, width=1, threads=2))
    for number in range(2):
        lanes.add(number, config(seed=number, epochs=2), shape_for(data), data, keep_weights=True)
    assert sorted(e.key for e in drain(lanes) if isinstance(e, Over)) == [0, 1]


def test_a_run_that_is_taken_out_in_its_turn_is_heard_of_no_more(
    data: DeviceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on = threading.Event(), threading.Event()
    tick = Pack.tick

    def held(pack: Pack, count: int) -> None:
        if pack.spec.batch_size == 16:
            entered.set()
            assert go_on.wait(timeout=30)
        tick(pack, count)

    monkeypatch.setattr(Pack, "tick", held)
    lanes = Lanes(CPU, LaneOptions(width=2, threads=2))
    shape = shape_for(data)
    gone, stays = config(epochs=4), config(seed=1, epochs=6)
    lanes.add("gone", gone, shape, data, keep_weights=True)
    lanes.add("stays", stays, shape, data, keep_weights=True)
    lanes.add("other", config(batch_size=50, epochs=1), shape, data, keep_weights=True)
    events = [*lanes.advance(), *lanes.advance()]  # of the other lane, while this one is held
    assert entered.wait(timeout=30)
    with ThreadPoolExecutor(1) as canceller:
        removed = canceller.submit(lanes.remove, "gone")
        assert not removed.done(), "a run that hangs is not said to be gone"
        go_on.set()
        assert removed.result(timeout=30)
    assert not lanes.remove("gone")
    events += drain(lanes)
    assert {e.key for e in events if isinstance(e, Over)} == {"stays", "other"}
    assert_same(outcomes(events)["stays"], alone(stays, shape, data, width=2))


def test_widths_are_measured_while_nothing_trains(
    data: DeviceData, monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = Lanes(CPU, LaneOptions(compile=False, threads=2))
    shape = shape_for(data)
    for number in range(2):
        lanes.add(number, config(seed=number, epochs=200), shape, data, keep_weights=True)
    lanes.advance()
    lanes.advance()

    def measure(*_: object, **__: object) -> int:
        assert all(turn.done() for turn in lanes._turns)
        return 2

    monkeypatch.setattr(lanes._widths, "best", measure)
    for number in range(2, 4):
        lanes.add(
            number, config(seed=number, batch_size=50, epochs=1), shape, data, keep_weights=True
        )
    assert outcomes(drain(lanes)).keys() == {0, 1, 2, 3}


def test_a_pack_that_needs_all_threads_trains_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = blobs(num_train=64, num_features=700, dtype=torch.float32)
    large = Mlp(700, (3_000, 1_000), data.targets.count)
    busy = threading.Semaphore(2)
    tick = Pack.tick
    seen: list[tuple[int, int]] = []

    def count(pack: Pack, ticks: int) -> None:
        is_large = pack.spec.model == large
        for _ in range(1 + is_large):
            assert busy.acquire(blocking=False), "a large pack and another one at once"
        tick(pack, ticks)
        busy.release(1 + is_large)
        seen.append((pack.spec.batch_size, pack._threads))

    monkeypatch.setattr(Pack, "tick", count)
    lanes = Lanes(CPU, LaneOptions(compile=False, threads=2))
    lanes.add("large", config(batch_size=64, epochs=2), large, data, keep_weights=True)
    small: RunConfig = config(batch_size=16, epochs=3)
    for number in range(2):
        lanes.add(number, small, shape_for(data), data, keep_weights=True)
    ended = outcomes(drain(lanes))
    assert ended.keys() == {"large", 0, 1}
    assert set(seen) == {(64, 2), (16, 1)}
