"""Handing out: many runs in few transactions, and as fairly as one at a time."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from ridgeline.service import reporting, trials
from ridgeline.service.external_protocol import CompleteRequest, SuggestRequest
from ridgeline.service.protocol import FUNCTIONS
from ridgeline.service.store.session import Store, Transaction
from tests.conftest import ManualClock
from tests.parallel import in_parallel
from tests.service.factory import Counted, FakeWorker, ended, external, post, spec, study_of
from tests.sites import install, installed_here
from tests.worker.odd_functions import ENTRY_POINTS


def names(worker: FakeWorker) -> Counter[str]:
    return Counter(order.study for order in worker.held.values())


def test_a_pack_is_filled_in_a_handful_of_transactions(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(store, spec("a", budget={"trials": 100}))
    post(store, spec("b", budget={"trials": 100}, replicates=3))
    worker = FakeWorker(store, num_slots=32, queue=32)
    counted = Counted(store, monkeypatch)
    worker.sync()
    assert names(worker) == {"a": 32, "b": 32}
    assert counted.number <= 6
    assert {order.reproducible for order in worker.held.values()} == {False}


def test_nothing_is_asked_again_once_a_study_has_given_what_it_may(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(store, spec(budget={"trials": 100, "max_parallel": 3}))
    worker = FakeWorker(store, num_slots=8, queue=8)
    counted, num_read, read = Counted(store, monkeypatch), 0, store.reading

    def reading() -> AbstractContextManager[Transaction]:
        nonlocal num_read
        num_read += 1
        return read()

    monkeypatch.setattr(store, "reading", reading)
    worker.sync()
    assert names(worker) == {"s": 3}
    assert counted.number == 2, "what the worker says, and its runs"
    assert num_read == 3, "which studies there are, what one may give, and the orders"


def test_an_answer_has_a_limited_number_of_runs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ridgeline.service.workers.MAX_ORDERS", 4)
    monkeypatch.setattr("ridgeline.service.dispatch._MAX_PLACES", 2)
    post(store, spec(budget={"trials": 100}))
    worker = FakeWorker(store, num_slots=10)
    counted = Counted(store, monkeypatch)
    statement = worker.statement()
    lost = worker.send(statement)
    assert len(lost.start) == 4
    assert counted.number == 3
    worker.send(statement)
    assert worker.sync().start == lost.start
    assert [len(worker.sync().start) for _ in range(3)] == [4, 2, 0]
    assert study_of(store).trials.running == 10


def test_runs_that_are_owed_are_told_in_several_answers(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(store, spec(budget={"trials": 100}))
    worker = FakeWorker(store, num_slots=10)
    lost = worker.send(worker.statement())
    monkeypatch.setattr("ridgeline.service.workers.MAX_ORDERS", 4)
    told = [worker.sync().start for _ in range(4)]
    assert [len(orders) for orders in told] == [4, 4, 2, 0]
    assert tuple(order for orders in told for order in orders) == lost.start


def test_devices_have_equal_shares_of_an_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ridgeline.service.workers.MAX_ORDERS", 8)
    post(store, spec(budget={"trials": 100}))
    worker = FakeWorker(store, num_slots=10, num_devices=3)
    orders = worker.sync(free_slots={"cpu:0": 20, "cpu:1": 20, "cpu:2": 0}).start
    assert Counter(order.device for order in orders) == {"cpu:0": 4, "cpu:1": 4}


def test_nobody_gets_more_runs_than_a_statement_can_name(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ridgeline.service.workers.MAX_HELD_RUNS", 5)
    post(store, spec(budget={"trials": 100}))
    worker = FakeWorker(store, num_slots=10)
    assert [len(worker.sync(free_slots={"cpu:0": 10}).start) for _ in range(2)] == [5, 0]


def test_orders_say_how_long_a_run_may_train(store: Store) -> None:
    post(store, spec("a", budget={"trials": 1, "run_seconds": 60}))
    post(store, spec("b", budget={"trials": 1}))
    orders = FakeWorker(store, num_slots=2).sync().start
    assert {order.study: order.run_seconds for order in orders} == {"a": 60.0, "b": None}


def test_runs_go_out_by_number_and_replicate(store: Store) -> None:
    post(store, spec(budget={"trials": 10}, replicates=3))
    worker = FakeWorker(store, num_slots=8)
    orders = worker.sync().start
    assert [(order.trial, order.replicate) for order in orders] == [
        (index // 3, index % 3) for index in range(8)
    ]
    more = worker.sync(ended=[ended(order) for order in orders[:4]]).start
    assert [(o.trial, o.replicate) for o in more] == [(2, 2), (3, 0), (3, 1), (3, 2)]


def test_orders_say_how_many_runs_follow(store: Store) -> None:
    post(store, spec(budget={"trials": 10}, replicates=3))
    worker = FakeWorker(store, num_slots=6)
    assert {order.num_following for order in worker.sync().start} == {8 * 3}


def test_the_replicates_of_running_trials_pass_those_that_must_wait(store: Store) -> None:
    """`max_parallel` holds back new trials, not the rest of those that have begun."""
    post(store, spec(budget={"trials": 6, "max_parallel": 2}, replicates=3))
    worker = FakeWorker(store, num_slots=2)
    first, second = worker.sync().start
    late = FakeWorker(store, num_slots=9)
    late.sync()
    assert {order.trial for order in late.held.values()} == {0, 1}
    assert len(late.held) == 4
    answer = worker.sync(ended=[ended(first, "released"), ended(second, "released")])
    assert sorted((o.trial, o.replicate) for o in answer.start) == [(0, 0), (0, 1)]


def test_what_one_study_cannot_use_goes_to_the_others(store: Store) -> None:
    post(store, spec("first", priority=2, budget={"trials": 3}))
    post(store, spec("bounded", priority=1, budget={"trials": 9, "max_parallel": 2}))
    post(store, spec("a", budget={"trials": 4}))
    post(store, spec("b", budget={"trials": 90}))
    worker = FakeWorker(store, num_slots=20)
    worker.sync()
    assert names(worker) == {"first": 3, "bounded": 2, "a": 4, "b": 11}


def test_places_are_shared_by_device_time(store: Store, clock: ManualClock) -> None:
    """A run of `slow` costs three of `quick`, so it gets a third as many."""
    for name in ("quick", "slow"):
        post(store, spec(name, budget={"trials": 1_000}))
    worker = FakeWorker(store, num_slots=2)
    worker.sync()
    seconds = {"quick": 1.0, "slow": 3.0}
    used: Counter[str] = Counter()
    for _ in range(4):
        worker.num_places = 40
        used.update(names(worker))
        clock.advance(3)
        worker.sync(ended=[ended(o, device_seconds=seconds[o.study]) for o in worker.held.values()])
    assert used["quick"] / used["slow"] == pytest.approx(3, rel=0.25)
    assert study_of(store, "quick").device_seconds == pytest.approx(
        study_of(store, "slow").device_seconds, rel=0.2
    )


def test_all_slots_come_before_any_queue(store: Store) -> None:
    post(store, spec(budget={"trials": 9, "max_parallel": 3}))
    one, other = FakeWorker(store, num_slots=2, queue=5), FakeWorker(store, num_slots=2, queue=5)
    one.sync()
    assert len(one.held) == 2
    other.sync()
    assert len(other.held) == 1


def test_workers_in_parallel_share_a_study(store: Store) -> None:
    post(
        store,
        spec(
            budget={"trials": 60},
            sampler={"name": "grid"},
            space={
                "learning_rate": {
                    "type": "float",
                    "low": 1e-4,
                    "high": 1e-1,
                    "log": True,
                    "points": 60,
                }
            },
        ),
    )
    some = [FakeWorker(store, num_slots=16) for _ in range(4)]
    queue = list(some)
    in_parallel(4, lambda: queue.pop().sync())
    for worker in some:
        worker.sync()
    held = [order.trial for worker in some for order in worker.held.values()]
    assert sorted(held) == list(range(60))


def test_a_program_gets_many_trials_of_a_reproducible_study_at_once(store: Store) -> None:
    """As it would one by one: each sees the results it has a right to."""
    found = []
    for name, count in (("one", 1), ("many", 4)):
        post(
            store,
            external(
                name,
                sampler={"name": "tpe", "seed": 3},
                budget={"trials": 20, "max_parallel": 4},
                reproducible=True,
            ),
        )
        while handed := trials.suggest(store, name, SuggestRequest(count=count)).trials:
            for trial in handed:
                end = {"attempt": trial.attempt, "value": float(trial.config["x"])}
                with store.transaction() as tx:
                    request = CompleteRequest.model_validate(end)
                    reporting.complete(tx, name, trial.number, request, max_charges=1)
        with store.reading() as tx:
            page, _ = trials.list_page(tx, name, page_size=50, cursor=None, state=None)
        found.append([trial.config for trial in page])
    assert len(found[0]) == 20
    assert found[0] == found[1]


def test_functions_go_to_devices_for_them_and_packs_to_all_others(
    store: Store, tmp_path: Path
) -> None:
    install(tmp_path / "site", "odd-functions", ENTRY_POINTS)
    with installed_here(tmp_path / "site"):
        function = {
            "task": {"name": "square"},
            "space": {"x": {"type": "float", "low": 0, "high": 1}},
            "objective": {"metric": "loss", "direction": "minimize"},
            "budget": {"trials": 10},
        }
        post(store, spec("packs", budget={"trials": 10}))
        post(store, spec("calls", **function, priority=5))
        other = FakeWorker(store, num_slots=2)
        other.sync()
        assert names(other) == {"packs": 2}
        worker = FakeWorker(store, num_slots=2, queue=2, functions=("square",))
        orders = worker.sync(free_slots={"cpu:0": 4, FUNCTIONS: 2}).start
        assert Counter((order.study, order.device) for order in orders) == {
            ("packs", "cpu:0"): 4,
            ("calls", FUNCTIONS): 2,
        }
        (order, *_) = (order for order in orders if order.study == "calls")
        assert order.config.keys() == {"x"}, "epochs are no parameter of it"
