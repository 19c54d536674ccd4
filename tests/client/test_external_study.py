"""External studies in the client: what is gathered, when it goes out, and that nothing is lost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from ridgeline.service.client import ApiError, Client, Unreachable
from ridgeline.service.external import GATHER_SECONDS, ExternalStudy, ExternalTrial
from ridgeline.service.external_protocol import MAX_TRIALS_A_CALL, SuggestedTrial
from ridgeline.service.lifecycle import FailReason
from tests.client.desk import URL, Clock, Desk, report, study_of


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(desk: Desk) -> Iterator[Client]:
    with Client(URL, retry_delays_seconds=(0,), transport=desk) as client:
        yield client


@pytest.fixture
def study(client: Client, clock: Clock) -> Iterator[ExternalStudy]:
    with study_of(client, clock) as study:
        yield study


def test_an_end_takes_the_epochs_with_it(study: ExternalStudy, desk: Desk) -> None:
    for _ in range(2):
        (trial,) = study.suggest()
        report(trial, 1, 2, 3)
        trial.complete()
    assert desk.told() == [[(0, [1, 2, 3], True)], [(1, [1, 2, 3], True)]]
    assert desk.keys == [None, None]


def test_epochs_go_out_after_a_while(study: ExternalStudy, desk: Desk, clock: Clock) -> None:
    (trial,) = study.suggest()
    report(trial, 1, 2)
    clock.seconds += GATHER_SECONDS
    report(trial, 3, 4)
    assert desk.told() == [[(0, [1, 2, 3], False)]]
    trial.complete(0.5)
    assert desk.told()[1:] == [[(0, [4], True)]]


def test_a_short_lease_is_renewed_in_time(client: Client, desk: Desk, clock: Clock) -> None:
    with study_of(client, clock, lease_seconds=1.0) as study:
        (trial,) = study.suggest()
        report(trial, 1)
        clock.seconds += 0.25
        report(trial, 2)
        assert desk.told() == [[(0, [1, 2], False)]]


def test_with_a_pruner_every_report_is_answered(client: Client, desk: Desk, clock: Clock) -> None:
    with study_of(client, clock, has_pruner=True) as study:
        (trial,) = study.suggest()
        report(trial, 1)
        assert not trial.should_prune
        report(trial, 2, score=10.0)
        assert trial.should_prune
        report(trial, 3)
        assert trial.should_prune
        trial.complete(state="PRUNED")
    assert [call[0][1] for call in desk.told()] == [[1], [2], [3], []]


def test_a_batch_is_one_call(client: Client, desk: Desk, clock: Clock) -> None:
    with study_of(client, clock, has_pruner=True) as study:
        one, two, three = study.suggest(3)
        with study.batch():
            report(one, 1, 2)
            report(two, 1, score=10.0)
            one.complete()
            three.complete(state="FAIL", error="boom")
            assert desk.calls == []
        assert desk.told() == [[(0, [1, 2], True), (1, [1], False), (2, [], True)]]
        assert (one.should_prune, two.should_prune) == (False, True)
    assert desk.keys[0] is not None, "a failure that is repeated needs a key"


def test_a_batch_that_fails_sends_what_it_has(study: ExternalStudy, desk: Desk) -> None:
    one, two = study.suggest(2)

    def fail() -> None:
        with study.batch():
            one.complete(0.5)
            report(two, 1)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        fail()
    assert desk.told() == [[(0, [], True), (1, [1], False)]]


def test_calls_stay_within_the_limits(
    study: ExternalStudy, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ridgeline.service.external._MAX_EPOCHS_A_CALL", 4)
    monkeypatch.setattr("ridgeline.service.external.MAX_TRIALS_A_CALL", 3)
    trials = study.suggest(3)
    with study.batch():
        report(trials[0], 1, 2, 3, 4, 5)
        for trial in trials:
            trial.complete(0.5)
    assert desk.told() == [
        [(0, [1, 2, 3, 4], False)],
        [(0, [5], True), (1, [], True), (2, [], True)],
    ]


def test_the_epochs_of_one_trial_go_out_in_several_calls(
    study: ExternalStudy, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, two) = study.suggest(2)
    desk.is_down = True
    for trial, num_epochs in ((one, 7), (two, 1)):
        for epoch in range(1, num_epochs + 1):
            with suppress(Unreachable):
                report(trial, epoch)
    desk.is_down = False
    monkeypatch.setattr("ridgeline.service.external._MAX_EPOCHS_A_CALL", 3)
    one.complete(0.5)
    assert desk.told() == [
        [(0, [1, 2, 3], False)],
        [(0, [4, 5, 6], False)],
        [(0, [7], True), (1, [1], False)],
    ]


def test_a_call_that_is_too_large_goes_out_in_halves(study: ExternalStudy, desk: Desk) -> None:
    one, two, three = study.suggest(3)
    desk.max_bytes = 250
    with study.batch():
        report(one, 1, 2, 3, 4)
        one.complete(0.5)
        two.complete(state="FAIL")
        three.complete(0.5)
    told = [trial for call in desk.told() for trial in call]
    assert told == [
        (0, [1, 2], False), (0, [3, 4], True), (1, [], True), (2, [], True)
    ]  # fmt: skip
    assert not any(trial.is_open for trial in (one, two, three))


def test_what_cannot_be_taken_is_told_once_and_the_rest_goes_on(
    study: ExternalStudy, desk: Desk
) -> None:
    one, two = study.suggest(2)
    desk.max_bytes = 400
    with study.batch():
        report(two, 1)
        one.report(1, {"score": 0.5, **{f"metric {index}": 0.5 for index in range(50)}})
        report(one, 2)
        with pytest.raises(ApiError, match="larger than the limit"):
            study.flush()
        study.flush()
        one.complete(0.5)
    assert desk.told() == [[(1, [1], False)], [(0, [2], False)], [(0, [], True)]]
    with pytest.raises(ApiError, match="larger than the limit"):
        two.complete(state="FAIL", error="x" * 500)
    assert two.is_open, "its end was not taken"
    two.complete(0.5)
    assert desk.told()[3:] == [[(1, [], True)]]
    study.suggest()


def test_a_lost_connection_loses_nothing(study: ExternalStudy, desk: Desk, clock: Clock) -> None:
    (trial,) = study.suggest()
    report(trial, 1)
    desk.is_down = True
    clock.seconds += GATHER_SECONDS
    with pytest.raises(Unreachable):
        report(trial, 2)
    with pytest.raises(Unreachable):
        trial.complete(0.5)
    with pytest.raises(Unreachable):
        study.suggest()
    assert desk.calls == []
    desk.is_down = False
    study.flush()
    assert desk.told() == [[(0, [1, 2], False)], [(0, [], True)]]
    study.flush()
    assert len(desk.calls) == 2


def test_a_call_without_an_answer_is_repeated_as_it_was(study: ExternalStudy, desk: Desk) -> None:
    one, two = study.suggest(2)
    report(one, 1)
    desk.is_silent = True
    with pytest.raises(Unreachable):
        one.complete(state="FAIL", reason=FailReason.CRASHED)
    desk.is_silent = False
    two.complete(0.5)
    assert desk.told() == [[(0, [1], True)], [(0, [1], True)], [(1, [], True)]]
    assert desk.keys[0] is not None
    assert desk.keys == [desk.keys[0], desk.keys[0], None]


def test_the_epochs_of_a_refused_end_are_told_without_it(study: ExternalStudy, desk: Desk) -> None:
    (trial,) = study.suggest()
    report(trial, 1, 2)
    desk.refused.add(trial.number)
    with pytest.raises(ApiError, match="needs a value"):
        trial.complete()
    desk.refused.clear()
    trial.complete(0.5)
    assert desk.told() == [[(0, [1, 2], True)], [(0, [1, 2], False)], [(0, [], True)]]


def test_closing_the_client_sends_the_rest(desk: Desk, clock: Clock) -> None:
    with Client(URL, transport=desk) as client:
        study = study_of(client, clock)
        client._external.append(study)
        (trial,) = study.suggest()
        report(trial, 1)
        assert desk.calls == []
    assert desk.told() == [[(0, [1], False)]]


def test_closing_says_what_could_not_be_sent(desk: Desk, clock: Clock) -> None:
    client = Client(URL, retry_delays_seconds=(), transport=desk)
    study = study_of(client, clock)
    client._external.append(study)
    (trial,) = study.suggest()
    report(trial, 1)
    desk.is_down = True
    with pytest.raises(Unreachable):
        client.close()


def test_an_error_reaches_the_trial_it_is_about(
    study: ExternalStudy, desk: Desk, clock: Clock
) -> None:
    lost, kept = study.suggest(2)
    desk.stale.add(lost.number)
    report(lost, 1)
    clock.seconds += GATHER_SECONDS
    report(kept, 1)
    with pytest.raises(ApiError, match="trial 0 is somebody else's") as caught:
        report(lost, 2)
    assert caught.value.status == 409
    with pytest.raises(ApiError, match="trial 0 is somebody else's"):
        lost.complete()
    kept.complete()


def test_an_error_that_no_call_for_its_trial_met_is_raised_at_last(
    study: ExternalStudy, desk: Desk
) -> None:
    one, two, three = study.suggest(3)
    desk.stale = {one.number, three.number}

    def complete_all() -> None:
        with study.batch():
            for trial in (one, two, three):
                trial.complete(0.5)

    with pytest.raises(ApiError, match=r"trial 0 is somebody else's; trial 2"):
        complete_all()
    study.flush()  # it is raised once


@pytest.mark.parametrize("value", [float("nan"), "low", None])
def test_what_cannot_be_reported_is_told_at_once(study: ExternalStudy, value: Any) -> None:
    (trial,) = study.suggest()
    with pytest.raises(ApiError, match=r"metrics\.score: must be a "):
        trial.report(1, {"score": value})


def test_the_end_of_the_interpreter_sends_the_rest() -> None:
    code = """
from tests.client.desk import URL, Clock, Desk, report, study_of
from ridgeline.service.client import Client
import atexit
desk = Desk()
atexit.register(lambda: print(desk.told()))
study = study_of(Client(URL, transport=desk), Clock())
report(study.suggest()[0], 1, 2)
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[[(0, [1, 2], False)]]"


@pytest.mark.parametrize(
    ("status", "told"),
    [(404, ""), (403, "ridgeline: s: not all reports were taken: no (HTTP 403)\n")],
)
def test_a_loop_that_is_refused_ends_in_one_error(status: int, told: str) -> None:
    """A study that was deleted has nothing to be told at the end of the interpreter."""
    code = f"""
from tests.client.desk import URL, Clock, Desk, report, study_of
from ridgeline.service.client import ApiError, Client
desk = Desk()
study = study_of(Client(URL, transport=desk), Clock())
try:
    for trial in study:
        desk.refusal = ({status}, "no")
        trial.complete(1.0)
except ApiError as exc:
    print(exc)
"""
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert (found.stdout, found.stderr) == (f"no (HTTP {status})\n", told)


def test_reports_of_one_trial_do_not_keep_another_from_renewing_its_lease(
    study: ExternalStudy, desk: Desk, clock: Clock
) -> None:
    first, second = study.suggest(2)
    clock.seconds = 35.0
    report(first, 1)
    clock.seconds = 35.5
    report(second, 1)
    assert desk.told() == [[(0, [1], False)], [(1, [1], False)]]


def test_what_an_outage_has_heaped_up_goes_out_in_calls_that_the_service_takes(
    study: ExternalStudy, desk: Desk
) -> None:
    trials = [*study.suggest(1_000), *study.suggest(1_000), *study.suggest(5)]
    desk.is_down = True
    for trial in trials:
        with suppress(Unreachable):
            trial.complete(0.5)
    desk.is_down = False
    study.flush()
    assert [len(call) for call in desk.calls] == [1, MAX_TRIALS_A_CALL, MAX_TRIALS_A_CALL, 4]
    assert [t["number"] for call in desk.calls for t in call] == [t.number for t in trials]


def test_a_later_attempt_is_told_apart_from_an_earlier_one(
    study: ExternalStudy, desk: Desk
) -> None:
    (earlier,) = study.suggest()
    desk.num_suggested = 0  # its lease ran out
    with study.batch():
        report(earlier, 1)
        later = ExternalTrial(
            study,
            SuggestedTrial(number=0, attempt=2, config={"x": 0.5}, seed=7, lease_seconds=60.0),
        )
        report(later, 1, 2)
    assert [[t["attempt"] for t in call] for call in desk.calls] == [[1], [2]]


def test_a_later_attempt_does_not_get_the_error_of_an_earlier_one(
    study: ExternalStudy, desk: Desk
) -> None:
    (earlier,) = study.suggest()
    report(earlier, 1)
    later = ExternalTrial(
        study,
        SuggestedTrial(number=0, attempt=2, config={"x": 0.5}, seed=7, lease_seconds=60.0),
    )
    desk.stale.add(0)
    report(later, 1)
    desk.stale.clear()
    later.complete(0.5)
    with pytest.raises(ApiError, match="somebody else's"):
        earlier.complete(0.5)


def test_a_loop_waits_for_a_service_that_restarts(
    study: ExternalStudy, desk: Desk, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    suggest = study._client.suggest

    def late(*args: Any, **values: Any) -> Any:
        clock.seconds += 20
        desk.is_down = clock.seconds <= up_at
        return suggest(*args, **values)

    monkeypatch.setattr(study._client, "suggest", late)
    up_at = 40.0
    trials = iter(study)
    trial = next(trials)
    trial.complete(0.5)
    assert trial.number == 0
    up_at = 1_000.0
    with pytest.raises(Unreachable):
        next(trials)
    assert clock.seconds == 120
    desk.is_down = False


def test_leases_are_renewed_while_the_program_has_the_trials(
    study: ExternalStudy, desk: Desk
) -> None:
    one, two, three = study.suggest(3)
    one.complete(0.5)
    report(two, 1)
    study.renew()
    assert desk.told() == [[(0, [], True)], [(1, [1], False), (2, [], False)]]
    desk.stale.add(three.number)
    study.renew()
    assert not three.is_open
    study.renew()
    assert desk.told()[2:] == [[(1, [], False), (2, [], False)], [(1, [], False)]]
    with pytest.raises(ApiError, match="trial 2 is somebody else's"):
        report(three, 1)
    desk.stale.clear()


def test_a_trial_that_the_program_dropped_is_not_renewed(study: ExternalStudy, desk: Desk) -> None:
    kept, _ = study.suggest(2)
    del _
    study.renew()
    assert desk.told() == [[(kept.number, [], False)]]


def test_an_outage_does_not_end_the_renewing(study: ExternalStudy, desk: Desk) -> None:
    (trial,) = study.suggest()
    desk.is_down = True
    study.renew()
    desk.is_down = False
    study.renew()
    assert desk.told() == [[(trial.number, [], False)]] * len(desk.calls)
    assert desk.calls


def test_they_are_renewed_in_the_background(client: Client, desk: Desk, clock: Clock) -> None:
    with study_of(client, clock, lease_seconds=0.01) as study:
        (trial,) = study.suggest()
        while not desk.calls:
            pass
    assert desk.told()[0] == [(trial.number, [], False)]
