"""What a worker says of its runs, case by case."""

from __future__ import annotations

import pytest

from ridgeline.service.protocol import (
    RunEnded,
    RunHeld,
    StudyRules,
    SyncResponse,
)
from ridgeline.service.worker import holdings as module
from ridgeline.service.worker.messages import (
    Died,
    Idle,
)
from tests.worker.desk import SEGFAULT, Desk, began, complete, report
from tests.worker.fakes import order


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_idle_slots_are_stated_until_the_process_is_gone(desk: Desk) -> None:
    assert desk.holdings.statement().idle_slots == {"cpu:0": 0}
    desk.hear(Idle(3))
    desk.answer()
    assert desk.holdings.statement().idle_slots == {"cpu:0": 3}
    desk.hear(SEGFAULT)
    desk.answer()
    assert desk.holdings.statement().idle_slots == {"cpu:0": 0}


def test_restarts_of_a_device_are_stated(desk: Desk) -> None:
    assert desk.holdings.statement().restarts == {"cpu:0": 0}
    for number in (1, 2):
        desk.hear(SEGFAULT)
        desk.answer()
        assert desk.holdings.statement().restarts == {"cpu:0": number}


def test_a_run_from_order_to_end(desk: Desk) -> None:
    first = desk.holdings.statement()
    assert (first.sync_seq, first.held, first.free_slots) == (1, (), {"cpu:0": 3})
    desk.answer(order(1))
    assert desk.port.started == [(1, 1)]
    desk.hear(began(1), report(1, 1))
    second = desk.holdings.statement()
    assert second.sync_seq == 2
    assert second.held == (RunHeld(run=1, attempt=1, device="cpu:0", program="p"),)
    assert second.reports == (report(1, 1),)
    assert second.free_slots == {"cpu:0": 2}
    desk.hear(report(1, 2), complete(1))
    assert desk.holdings.statement() is second, "the statement stays until it is answered"
    desk.answer()
    third = desk.holdings.statement()
    assert (third.sync_seq, third.held) == (3, ())
    assert third.reports == (report(1, 2),)
    assert third.ended == (complete(1),)
    desk.answer()
    fourth = desk.holdings.statement()
    assert (fourth.held, fourth.reports, fourth.ended) == ((), (), ())


def test_a_run_that_is_held_or_not_settled_is_not_begun_again(desk: Desk) -> None:
    desk.answer(order(1))
    desk.holdings.statement()
    desk.hear(began(1), complete(1))
    desk.answer(order(1))
    assert desk.port.started == [(1, 1)]


def test_a_later_attempt_is_another_handing_out(desk: Desk) -> None:
    desk.answer(order(1))
    desk.answer(order(1, attempt=2), stop=((1, 1),))
    assert desk.port.started == [(1, 1), (1, 2)]
    assert desk.port.stopped == [(1, 1)]
    assert desk.ended() == [(1, "stopped")]


def test_a_worker_asks_for_as_many_runs_as_train_and_some_that_wait() -> None:
    for num_slots, num_places in [(1, 3), (4, 8), (256, 512)]:
        assert Desk(num_slots).holdings.statement().free_slots == {"cpu:0": num_places}


def test_the_api_is_told_at_once_when_a_run_has_ended(desk: Desk) -> None:
    desk.answer(order(1), order(2), order(3))
    desk.hear(began(1), report(1, 1))
    assert not desk.holdings.urgent, "reports go along with the next call"
    desk.hear(complete(1))
    assert desk.holdings.urgent
    desk.holdings.statement()
    assert not desk.holdings.urgent


def test_an_end_waits_for_its_turn_where_the_api_has_no_other_run(desk: Desk) -> None:
    desk.answer(order(1, num_following=1), order(2, num_following=1))
    desk.hear(complete(1))
    assert desk.holdings.urgent, "the study makes another"
    desk.answer(order(3))
    assert (desk.holdings.urgent, desk.holdings.has_ends) == (False, False)
    desk.hear(complete(2))
    assert (desk.holdings.urgent, desk.holdings.has_ends) == (False, True)
    desk.hear(complete(3))
    assert desk.holdings.urgent, "nobody waits for the end of a study"
    desk.holdings.statement()
    assert (desk.holdings.urgent, desk.holdings.has_ends) == (False, False)


def test_a_run_that_is_to_be_tried_again_is_told_at_once(desk: Desk) -> None:
    desk.answer(order(1), order(2))
    desk.hear(began(1), Died("died"))
    assert desk.holdings.urgent


def test_much_to_tell_takes_several_statements(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORTS_PER_STATEMENT", 3)
    desk.answer(order(1), order(2))
    desk.hear(began(1), report(1, 1), report(1, 2), complete(1))
    desk.hear(began(2), report(2, 1), report(2, 2), complete(2))
    desk.holdings.release_all()
    first = desk.holdings.statement()
    assert [(r.run, r.epoch) for r in first.reports] == [(1, 1), (1, 2), (2, 1)]
    assert (desk.ended(), desk.held()) == ([(1, "complete")], [2])
    assert not first.leaving
    assert desk.holdings.urgent
    desk.answer()
    second = desk.holdings.statement()
    assert [(r.run, r.epoch) for r in second.reports] == [(2, 2)]
    assert (desk.ended(), desk.held()) == ([(2, "complete")], [])
    assert second.leaving
    assert not desk.holdings.urgent


def test_a_lost_worker_forgets_everything(desk: Desk) -> None:
    desk.answer(order(1), order(2), order(3))
    desk.hear(began(1), complete(1), began(2), report(2, 1))
    desk.holdings.statement()
    desk.holdings.drop_all()
    assert desk.port.stopped == [(2, 1), (3, 1)]
    statement = desk.holdings.statement()
    assert statement.sync_seq == 1
    assert (statement.held, statement.reports, statement.ended) == ((), (), ())
    desk.hear(report(2, 2), Died("died with signal 11 (Segmentation fault)"))
    desk.answer()
    assert desk.ended() == []


def test_a_leaving_worker_gives_everything_back(desk: Desk) -> None:
    desk.answer(order(1), order(2), order(3))
    desk.hear(began(1), report(1, 1), complete(1), began(2))
    outstanding = desk.holdings.statement()
    desk.clock.seconds += 4
    desk.holdings.release_all()
    assert desk.holdings.statement() is outstanding
    desk.answer(order(4))
    last = desk.holdings.statement()
    assert last.leaving
    assert (last.held, last.free_slots) == ((), {"cpu:0": 0})
    assert desk.ended() == [(2, "released"), (3, "released")]
    assert [end.device_seconds for end in last.ended] == [4, 0]
    assert desk.port.started == [(1, 1), (2, 1), (3, 1)]


def rules(study: str, version: int) -> StudyRules:
    return StudyRules(
        study=study, version=version, metric="loss", direction="minimize", thresholds={1: 0.5}
    )


def test_rules_reach_every_process_of_a_device_while_their_study_has_runs(desk: Desk) -> None:
    desk.holdings.statement()
    desk.holdings.answered(
        SyncResponse(start=(order(1),), stop=(), refused=(), rules=(rules("study", 3),))
    )
    assert [each.version for each in desk.port.rules] == [3]
    assert desk.holdings.statement().rules == {"study": 3}
    desk.hear(Died("ended with code 1"), desk.ready)
    assert [each.version for each in desk.port.rules] == [3, 3]
    desk.hear(began(1), RunEnded(run=1, attempt=1, outcome="pruned", rule_version=3))
    desk.answer()  # to the statement made before
    desk.answer()
    assert desk.holdings.statement().rules == {}
