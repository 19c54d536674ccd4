"""Whose fault it is that a device's process died, and what becomes of those it took with it."""

from __future__ import annotations

import pytest

from ridgeline.service.protocol import (
    RunEnded,
)
from ridgeline.service.worker.devices import STOP_GRACE_SECONDS
from ridgeline.service.worker.messages import (
    CannotStart,
    Died,
    Prepared,
    Preparing,
    Released,
)
from tests.worker.desk import SEGFAULT, Desk, began, complete, report
from tests.worker.fakes import order

NOT_STOPPED = ("it did not stop a run", False)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_the_run_that_trained_pays_for_a_death_and_no_other(desk: Desk) -> None:
    desk.answer(order(1), order(2), order(3))
    desk.hear(began(1), report(1, 1), complete(1), began(2))
    desk.clock.seconds += 2.5
    desk.hear(Died("died with signal 9 (Killed)"))
    statement = desk.holdings.statement()
    assert desk.ended() == [(1, "complete"), (2, "crashed")]
    assert statement.ended[1].error == "the device process died with signal 9 (Killed)"
    assert statement.ended[1].device_seconds == 2.5
    assert statement.ended[1].program == "p"
    assert statement.free_slots == {"cpu:0": 0}, "nothing new before it is ready again"
    assert desk.held() == [3]
    desk.hear(desk.ready)
    assert desk.port.started == [(1, 1), (2, 1), (3, 1), (3, 1)]


def test_a_death_between_runs_is_nobodys_fault(desk: Desk) -> None:
    desk.answer(order(1), order(2))
    desk.hear(began(1), complete(1), Died("ended with code 0"))
    assert desk.ended() == [(1, "complete")]
    assert desk.held() == [2]


def test_nobody_is_charged_where_several_trained(desk: Desk) -> None:
    desk.answer(*map(order, range(1, 7)))
    for run in range(1, 6):
        desk.hear(began(run))
    desk.clock.seconds += 10
    desk.hear(report(1, 1), SEGFAULT)
    statement = desk.holdings.statement()
    assert desk.ended() == [(run, "released") for run in range(1, 6)]
    assert [end.device_seconds for end in statement.ended] == [2.0] * 5, "their shares"
    assert {end.error for end in statement.ended} == {None}
    assert desk.held() == [6], "it waited"


def test_those_that_died_together_are_tried_again_in_halves_until_one_is_alone() -> None:
    desk = Desk(num_slots=8)
    desk.answer(*map(order, range(1, 9)))
    desk.hear(*map(began, range(1, 9)), SEGFAULT, desk.ready)
    desk.answer(*[order(run, attempt=2) for run in range(1, 9)])
    assert desk.port.started[8:] == [(run, 2) for run in range(1, 5)], "four at once"
    desk.hear(began(1, 2), began(2, 2), complete(1, 2))
    assert desk.port.started[12:] == [(5, 2)], "a place is free"
    desk.hear(began(3, 2), began(4, 2), began(5, 2), SEGFAULT, desk.ready)
    assert desk.port.started[13:] == [(6, 2), (7, 2), (8, 2)], "the others still by four"
    assert desk.ended() == [(1, "complete")] + [(run, "released") for run in (2, 3, 4, 5)]
    for run in (6, 7, 8):
        desk.hear(began(run, 2), complete(run, 2))
    desk.answer()
    desk.answer(*[order(run, attempt=3) for run in (2, 3, 4, 5)])
    assert desk.port.started[16:] == [(2, 3), (3, 3)]
    desk.hear(began(2, 3), began(3, 3), SEGFAULT, desk.ready)
    desk.answer(*[order(run, attempt=4) for run in (2, 3)])
    assert desk.port.started[18:] == [(4, 3), (5, 3)]
    desk.hear(began(4, 3), complete(4, 3), began(5, 3), complete(5, 3))
    assert desk.port.started[20:] == [(2, 4)], "alone"
    desk.hear(began(2, 4), complete(2, 4))
    assert desk.port.started[21:] == [(3, 4)]
    desk.hear(began(3, 4), SEGFAULT, desk.ready)
    assert desk.ended() == [(run, "complete") for run in (4, 5)] + [(2, "complete"), (3, "crashed")]


def test_a_run_told_to_stop_may_be_the_guilty_one_as_long_as_it_trains() -> None:
    desk = Desk(num_slots=4)
    desk.answer(order(1), order(2))
    desk.hear(began(1), began(2))
    desk.answer(stop=((1, 1),))
    desk.hear(SEGFAULT, desk.ready)
    assert desk.ended() == [(1, "stopped"), (2, "released")]


def test_a_run_that_was_charged_is_alone_from_then_on() -> None:
    desk = Desk(num_slots=4)
    desk.answer(order(1))
    desk.hear(began(1), SEGFAULT, desk.ready)
    desk.answer(order(2))
    desk.answer(order(1, attempt=2), order(3))
    assert desk.port.started[1:] == [(2, 1)], "3 came after it"
    desk.hear(began(2), complete(2))
    assert desk.port.started[2:] == [(1, 2)]
    desk.hear(RunEnded(run=1, attempt=2, outcome="diverged"))
    desk.answer(order(4), order(1, attempt=3))
    assert desk.port.started[3:] == [(3, 1), (4, 1), (1, 3)], "a run that ends forgets its limit"


def test_a_run_is_charged_for_what_it_alone_was_prepared_for() -> None:
    desk = Desk(num_slots=4)
    desk.answer(order(1), order(2), order(3))
    desk.hear(
        Preparing((1, 1)), Prepared((1, 1)), began(1), Preparing((2, 1)), SEGFAULT, desk.ready
    )
    assert desk.ended() == [(1, "released"), (2, "crashed")]
    desk.answer(order(1, attempt=2))
    assert desk.port.started[3:] == [(3, 1), (1, 2)]


def test_a_process_that_dies_while_it_makes_a_pack_is_bisected_too() -> None:
    desk = Desk(num_slots=4)
    desk.answer(*map(order, range(1, 5)))
    for run in (1, 2, 3):
        desk.hear(Preparing((run, 1)), Prepared((run, 1)))
    desk.hear(SEGFAULT, desk.ready)
    assert desk.ended() == [(run, "released") for run in (1, 2, 3)], "4 had not been touched"
    desk.hear(Preparing((4, 1)), Prepared((4, 1)), began(4), complete(4))
    desk.answer(*[order(run, attempt=2) for run in (1, 2, 3)])
    assert desk.port.started[5:] == [(1, 2)], "one at a time from now on"
    desk.hear(Preparing((1, 2)), Prepared((1, 2)), SEGFAULT, desk.ready)
    assert (1, "crashed") in desk.ended()


def test_a_run_that_could_not_be_prepared_leaves_no_trace(desk: Desk) -> None:
    desk.answer(order(1), order(2))
    desk.hear(Preparing((1, 1)), RunEnded(run=1, attempt=1, outcome="out_of_memory"), SEGFAULT)
    assert desk.ended() == [(1, "out_of_memory")]
    assert desk.held() == [2]


def test_a_pack_that_failed_is_tried_again_within_its_limit() -> None:
    desk = Desk(num_slots=4)
    desk.answer(*map(order, range(1, 5)))
    released = [RunEnded(run=run, attempt=1, outcome="released") for run in range(1, 5)]
    desk.hear(*map(began, range(1, 5)))
    desk.hear(Released(released[0], 2), Released(released[1], 2))
    desk.hear(Released(released[2], None), Released(released[3], None))
    assert desk.ended() == [(run, "released") for run in range(1, 5)]
    desk.answer(*[order(run, attempt=2) for run in (3, 4, 1)])
    assert desk.port.started[4:] == [(3, 2), (4, 2)]
    desk.hear(complete(3, 2))
    assert desk.port.started[6:] == [(1, 2)]


def test_limits_outlive_the_registration() -> None:
    desk = Desk(num_slots=4)
    desk.answer(order(1), order(2))
    desk.hear(began(1), began(2), SEGFAULT, desk.ready)
    desk.holdings.drop_all()
    desk.answer(order(1, attempt=2), order(2, attempt=2))
    assert desk.port.started[2:] == [(1, 2)]


def test_a_waiting_run_that_is_stopped_is_not_begun() -> None:
    desk = Desk(num_slots=4)
    desk.answer(order(1), order(2))
    desk.hear(began(1), began(2), SEGFAULT, desk.ready)
    desk.answer(*[order(run, attempt=2) for run in (1, 2)], order(3))
    desk.answer(stop=((1, 2), (2, 2)))
    assert desk.port.stopped == [(1, 2)], "the device has not heard of 2"
    assert desk.port.started[2:] == [(1, 2), (3, 1)]


def test_a_device_that_does_not_come_back_gives_its_runs_back(desk: Desk) -> None:
    desk.hear(Died("ended with code 1"))
    desk.answer(order(1), order(2))
    assert desk.port.started == []
    desk.hear(CannotStart("there is no device"), Died("ended with code 1"))
    assert desk.ended() == [(1, "released"), (2, "released")]


def test_a_stopped_run_ends_at_once_and_says_no_more(desk: Desk) -> None:
    desk.answer(order(1), order(2))
    desk.hear(began(1), report(1, 1))
    desk.answer(stop=((1, 1), (2, 1)))
    assert desk.port.stopped == [(1, 1), (2, 1)]
    desk.hear(report(1, 2))
    statement = desk.holdings.statement()
    assert (statement.held, statement.reports) == ((), ())
    assert desk.ended() == [(1, "stopped"), (2, "stopped")]
    desk.hear(report(1, 3), complete(1))
    desk.answer()
    assert desk.ended() == []
    assert desk.holdings.statement().reports == ()


def test_the_end_of_a_stopped_run_frees_the_device_for_the_next(desk: Desk) -> None:
    desk.answer(order(1), order(2))
    desk.hear(began(1))
    desk.answer(stop=((1, 1),))
    desk.hear(RunEnded(run=1, attempt=1, outcome="stopped"), began(2), complete(2))
    assert desk.holdings.due_at == float("inf")
    desk.hear(Died("ended with code 0"))
    assert desk.ended() == [(1, "stopped"), (2, "complete")]


@pytest.mark.parametrize("told_late", [False, True])
def test_a_device_that_does_not_stop_is_killed(desk: Desk, told_late: bool) -> None:
    desk.answer(order(1), order(2))
    if not told_late:
        desk.hear(began(1))
    desk.answer(stop=((1, 1),))
    if told_late:
        desk.hear(began(1))
    assert desk.holdings.due_at == desk.clock() + STOP_GRACE_SECONDS
    desk.clock.seconds += STOP_GRACE_SECONDS - 1
    desk.holdings.end_overdue()
    assert desk.port.killed == []
    desk.clock.seconds += 1
    desk.holdings.end_overdue()
    desk.holdings.end_overdue()
    assert desk.port.killed == [NOT_STOPPED]
    desk.hear(Died("died with signal 9 (Killed)"))
    assert desk.ended() == [(1, "stopped")]
    assert desk.held() == [2]


def test_a_kill_for_a_run_that_does_not_stop_charges_and_limits_nobody() -> None:
    desk = Desk(num_slots=4)
    desk.answer(*map(order, range(1, 5)))
    desk.hear(*map(began, range(1, 4)), Preparing((4, 1)))
    desk.answer(stop=((2, 1),))
    desk.clock.seconds += STOP_GRACE_SECONDS
    desk.holdings.end_overdue()
    assert desk.port.killed == [NOT_STOPPED]
    desk.hear(Died("died with signal 9 (Killed)"), desk.ready)
    assert sorted(desk.ended()) == [(1, "released"), (2, "stopped"), (3, "released")]
    desk.answer(order(1, attempt=2), order(3, attempt=2))
    assert desk.port.started[4:] == [(4, 1), (1, 2), (3, 2)]


def test_a_run_that_hangs_while_it_is_prepared_is_killed_too(desk: Desk) -> None:
    desk.answer(order(1), order(2))
    desk.hear(Preparing((1, 1)))
    desk.answer(stop=((1, 1), (2, 1)))
    desk.clock.seconds += STOP_GRACE_SECONDS
    desk.holdings.end_overdue()
    assert desk.port.killed == [NOT_STOPPED]
    desk.hear(Died("died with signal 9 (Killed)"))
    assert desk.ended() == [(1, "stopped"), (2, "stopped")]


def test_a_process_that_hangs_while_it_makes_a_pack_is_killed_too() -> None:
    desk = Desk(num_slots=4)
    desk.answer(order(1), order(2))
    for run in (1, 2):
        desk.hear(Preparing((run, 1)), Prepared((run, 1)))
    desk.answer(stop=((1, 1),))
    assert desk.holdings.due_at == desk.clock() + STOP_GRACE_SECONDS
    desk.clock.seconds += STOP_GRACE_SECONDS
    desk.holdings.end_overdue()
    assert desk.port.killed == [NOT_STOPPED]
    desk.hear(Died("died with signal 9 (Killed)"), desk.ready)
    assert desk.ended() == [(1, "stopped")]
    assert desk.port.started[2:] == [(2, 1)], "neither charged nor held back"


def test_a_run_stopped_while_it_is_prepared_costs_the_process_nothing(desk: Desk) -> None:
    desk.answer(order(1), order(2))
    desk.hear(Preparing((1, 1)))
    desk.answer(stop=((1, 1),))
    desk.hear(Prepared((1, 1)), RunEnded(run=1, attempt=1, outcome="stopped"))
    assert desk.holdings.due_at == float("inf")


def test_a_run_hit_by_a_kill_meant_for_the_one_before_is_given_back(desk: Desk) -> None:
    desk.answer(order(1), order(2))
    desk.hear(began(1))
    desk.answer(stop=((1, 1),))
    desk.clock.seconds += STOP_GRACE_SECONDS
    desk.holdings.end_overdue()
    desk.hear(complete(1), began(2), Died("died with signal 9 (Killed)"))
    assert desk.ended() == [(1, "stopped"), (2, "released")]
    desk.hear(desk.ready)
    desk.answer(order(3))
    desk.hear(began(3), Died("died with signal 9 (Killed)"))
    assert desk.ended() == [(3, "crashed")]
