"""Devices that hang, runs that train for too long: whose fault it is, and what becomes of all."""

from __future__ import annotations

import pytest

from ridgeline.service.protocol import RunEnded
from ridgeline.service.worker.devices import SLOW_SECONDS, STOP_GRACE_SECONDS
from ridgeline.service.worker.messages import Beat, Died, Prepared, Preparing
from tests.worker.desk import Desk, began, complete
from tests.worker.fakes import HANG_SECONDS, order

STUCK = ("a step did not end for 300 s", True)
KILLED = Died("was killed: a step did not end for 300 s", is_hung=True)
SILENT = Died("was killed: it said nothing for too long", is_hung=True)


@pytest.fixture
def desk() -> Desk:
    return Desk(num_slots=4)


def test_a_run_whose_step_does_not_end_pays_for_it_and_no_other(desk: Desk) -> None:
    desk.answer(*map(order, range(1, 5)))
    desk.hear(began(1), began(2), Preparing((3, 1)), Prepared((3, 1)), Preparing((4, 1)))
    desk.hear(Beat({(1, 1): HANG_SECONDS - 1, (2, 1): 0.0}, 0.0))
    assert desk.port.killed == []
    desk.hear(Beat({(1, 1): HANG_SECONDS, (2, 1): 0.0}, HANG_SECONDS))
    desk.hear(Beat({(1, 1): HANG_SECONDS + 1}, HANG_SECONDS + 1))
    assert desk.port.killed == [STUCK]
    desk.hear(KILLED, desk.ready)
    assert sorted(desk.ended()) == [(1, "timeout"), (2, "released")]
    (end, _) = sorted(desk.holdings.statement().ended, key=lambda end: end.run)
    assert end.error == "the device process was killed: a step did not end for 300 s"
    assert desk.port.started[4:] == [(3, 1), (4, 1)], "those that waited are tried at once"
    desk.answer(order(2, attempt=2))
    assert desk.port.started[6:] == [(2, 2)], "the other one of a pack of its own is not held back"


def test_a_run_that_hung_is_alone_from_then_on(desk: Desk) -> None:
    desk.answer(order(1))
    desk.hear(began(1), Beat({(1, 1): HANG_SECONDS}, 0.0), KILLED, desk.ready)
    desk.answer(order(2))
    desk.answer(order(1, attempt=2))
    assert desk.port.started[1:] == [(2, 1)]
    desk.hear(began(2), complete(2))
    assert desk.port.started[2:] == [(1, 2)]


def test_those_that_hung_together_are_tried_again_in_halves(desk: Desk) -> None:
    desk.answer(*map(order, range(1, 5)))
    desk.hear(*map(began, range(1, 5)))
    desk.hear(Beat(dict.fromkeys([(run, 1) for run in range(1, 5)], HANG_SECONDS), 0.0))
    desk.hear(KILLED, desk.ready)
    assert desk.ended() == [(run, "released") for run in range(1, 5)]
    desk.answer(*[order(run, attempt=2) for run in range(1, 5)])
    assert desk.port.started[4:] == [(1, 2), (2, 2)]
    desk.hear(began(1, 2), began(2, 2), Beat({(1, 2): HANG_SECONDS, (2, 2): HANG_SECONDS}, 0.0))
    desk.hear(KILLED, desk.ready)
    desk.answer(*[order(run, attempt=3) for run in (1, 2)])
    assert desk.port.started[6:8] == [(3, 2), (4, 2)]
    desk.hear(began(3, 2), began(4, 2), complete(3, 2), complete(4, 2), began(1, 3))
    desk.hear(Beat({(1, 3): HANG_SECONDS}, 0.0), KILLED)
    assert (1, "timeout") in desk.ended()


def test_a_process_that_falls_silent_hangs_by_the_run_that_trained_alone(desk: Desk) -> None:
    desk.answer(order(1), order(2))
    desk.hear(began(1), Preparing((2, 1)), Prepared((2, 1)), SILENT, desk.ready)
    assert desk.ended() == [(1, "timeout")]
    assert desk.held() == [2]


def test_a_process_that_falls_silent_charges_none_of_several(desk: Desk) -> None:
    desk.answer(order(1), order(2))
    desk.hear(began(1), began(2), SILENT, desk.ready)
    assert desk.ended() == [(1, "released"), (2, "released")]
    desk.answer(order(1, attempt=2), order(2, attempt=2))
    assert desk.port.started[2:] == [(1, 2)]


def test_a_run_that_was_prepared_beside_others_did_not_hang_alone(desk: Desk) -> None:
    desk.answer(order(1), order(2))
    desk.hear(began(1), Preparing((2, 1)), SILENT)
    assert desk.ended() == [(1, "released"), (2, "released")]


def test_what_comes_before_training_may_take_longer() -> None:
    desk = Desk(num_slots=4, hang_seconds=5)
    desk.answer(*map(order, range(1, 4)))
    desk.hear(began(1), began(2), Preparing((3, 1)), Beat({}, SLOW_SECONDS - 1))
    assert desk.port.killed == []
    desk.hear(Beat({}, SLOW_SECONDS))
    assert desk.port.killed == [("it was at one thing for 600 s", True)]
    desk.hear(SILENT, desk.ready)
    assert sorted(desk.ended()) == [(1, "released"), (2, "released"), (3, "timeout")]
    desk.answer(order(1, attempt=2), order(2, attempt=2))
    assert desk.port.started[3:] == [(1, 2), (2, 2)], "not held back"


def test_a_pack_that_does_not_open_is_not_the_fault_of_another(desk: Desk) -> None:
    desk.answer(*map(order, range(1, 4)))
    desk.hear(began(1))
    for run in (2, 3):
        desk.hear(Preparing((run, 1)), Prepared((run, 1)))
    desk.hear(Beat({}, SLOW_SECONDS), SILENT, desk.ready)
    assert desk.ended() == [(run, "released") for run in (1, 2, 3)]
    desk.answer(*[order(run, attempt=2) for run in (1, 2, 3)])
    assert desk.port.started[3:] == [(1, 2)]
    desk.hear(began(1, 2), complete(1, 2))
    assert desk.port.started[4:] == [(2, 2)], "one at a time"


def test_a_hang_of_a_run_that_was_stopped_charges_nobody(desk: Desk) -> None:
    desk.answer(order(1), order(2))
    desk.hear(began(1), began(2))
    desk.answer(stop=((1, 1),))
    desk.hear(Beat({(1, 1): HANG_SECONDS}, 0.0), KILLED, desk.ready)
    assert sorted(desk.ended()) == [(1, "stopped"), (2, "released")]


def test_a_run_that_trains_alone_for_too_long_is_charged(desk: Desk) -> None:
    desk.answer(order(1).model_copy(update={"run_seconds": 60.0}), order(2))
    desk.clock.seconds += 100
    desk.hear(began(1))
    assert desk.holdings.due_at == desk.clock() + 60
    desk.clock.seconds += 59
    desk.holdings.end_overdue()
    assert desk.ended() == []
    desk.answer()
    desk.clock.seconds += 1
    desk.holdings.end_overdue()
    assert desk.port.stopped == [(1, 1)]
    (end,) = desk.holdings.statement().ended
    assert (end.run, end.outcome, end.device_seconds) == (1, "timeout", 60)
    assert end.error == "it trained longer than budget.run_seconds, which is 60"
    assert desk.port.killed == [], "its process goes on"
    desk.hear(RunEnded(run=1, attempt=1, outcome="stopped"), began(2))
    assert desk.holdings.due_at == float("inf")


def test_runs_that_train_together_for_too_long_are_tried_again_in_halves(desk: Desk) -> None:
    limited = [order(run).model_copy(update={"run_seconds": 60.0}) for run in range(1, 5)]
    desk.answer(*limited)
    desk.hear(*map(began, range(1, 5)), complete(4))
    desk.clock.seconds += 60
    desk.holdings.end_overdue()
    assert desk.ended() == [(run, "released") for run in (1, 2, 3)] + [(4, "complete")]
    desk.hear(*[RunEnded(run=run, attempt=1, outcome="stopped") for run in (1, 2, 3)])
    desk.answer()
    desk.answer(*[one.model_copy(update={"attempt": 2}) for one in limited[:3]])
    assert desk.port.started[4:] == [(1, 2), (2, 2)], "half of four"
    desk.hear(began(1, 2))
    desk.clock.seconds += 1
    desk.hear(began(2, 2))
    desk.clock.seconds += 59
    desk.holdings.end_overdue()
    desk.hear(RunEnded(run=1, attempt=2, outcome="stopped"))
    desk.clock.seconds += 1
    desk.holdings.end_overdue()
    assert desk.ended() == [(1, "released"), (2, "released")], "neither was alone all the time"


def test_a_hung_run_with_a_limit_is_killed_as_one_that_does_not_stop(desk: Desk) -> None:
    desk.answer(order(1).model_copy(update={"run_seconds": 60.0}))
    desk.hear(began(1))
    desk.clock.seconds += 60
    desk.holdings.end_overdue()
    assert desk.ended() == [(1, "timeout")]
    assert desk.holdings.due_at == desk.clock() + STOP_GRACE_SECONDS
    desk.clock.seconds += STOP_GRACE_SECONDS
    desk.holdings.end_overdue()
    assert desk.port.killed == [("it did not stop a run", False)]


def test_a_run_that_ends_in_time_is_left_alone(desk: Desk) -> None:
    desk.answer(order(1).model_copy(update={"run_seconds": 60.0}))
    desk.hear(began(1), complete(1))
    desk.clock.seconds += 60
    desk.holdings.end_overdue()
    assert desk.ended() == [(1, "complete")]


def test_a_run_given_back_has_no_limit_any_more(desk: Desk) -> None:
    desk.answer(order(1).model_copy(update={"run_seconds": 60.0}))
    desk.hear(began(1))
    desk.holdings.release_all()
    desk.answer()
    desk.clock.seconds += 60
    desk.holdings.end_overdue()
    assert desk.ended() == []
