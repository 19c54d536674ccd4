"""`for trial in client.external(name)`: programs that share a study, fail and die."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import anyio.from_thread
import pytest

from ridgeline.service import workers
from ridgeline.service.api.app import create_app
from ridgeline.service.client import Client
from ridgeline.service.external import ExternalTrial
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.settings import Settings
from ridgeline.service.store.session import Store
from tests.api.calling import EXTERNAL, AsgiTransport
from tests.conftest import ManualClock
from tests.parallel import in_parallel

TPE = {
    **EXTERNAL,
    "sampler": {"name": "tpe", "seed": 1},
    "budget": {"trials": 24},
}


@pytest.fixture
def clients(store: Store) -> Iterator[list[Client]]:
    """Of four programs."""
    app = create_app(Settings(_env_file=None), store)
    with anyio.from_thread.start_blocking_portal() as portal:
        made = [Client("http://localhost", transport=AsgiTransport(app, portal)) for _ in range(4)]
        yield made
        for client in made:
            client.close()


def train(trial: ExternalTrial) -> None:
    trial.report(1, {"error": int(trial.config["depth"])})
    trial.complete()


def test_four_programs_share_a_study_to_its_end(clients: list[Client]) -> None:
    clients[0].create_study(TPE)
    trained: list[int] = []
    ended_at: list[StudyState] = []
    both_held = threading.Barrier(2)
    programs = iter(clients)

    def work() -> None:
        client = next(programs)
        for trial in client.external("x"):
            if trial.number < 2:
                both_held.wait()  # all that `max_parallel` allows, and the others wait
            trained.append(trial.number)
            train(trial)
        ended_at.append(client.study("x").state)

    in_parallel(4, work)
    assert sorted(trained) == list(range(24))
    assert ended_at == [StudyState.COMPLETED] * 4


def test_the_trial_of_a_program_that_died_goes_to_one_that_waits(
    clients: list[Client], store: Store, clock: ManualClock
) -> None:
    clients[0].create_study({**EXTERNAL, "budget": {"trials": 2, "max_parallel": 1}})
    clients[0].suggest("x", lease_seconds=60.0)  # and is never heard of again
    seen: list[int] = []

    def work() -> None:
        for trial in clients[1].external("x"):
            seen.append(trial.number)
            train(trial)

    thread = threading.Thread(target=work)
    thread.start()
    clock.advance(61)
    assert workers.expire(store) == 1
    thread.join()
    assert seen == [0, 1]


def test_an_exception_hands_the_trial_back(clients: list[Client]) -> None:
    clients[0].create_study(EXTERNAL)

    def crash() -> None:
        for trial in clients[0].external("x"):
            trial.report(1, {"error": 1.0})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        crash()
    (run,) = clients[0].trial("x", 0).runs
    assert (run.state, run.charges, run.error) == ("WAITING", 1, "its program left it open")
    for trial in clients[1].external("x"):
        train(trial)
    assert clients[0].study("x").trials.complete == 4


def test_a_trial_that_crashes_every_program_does_not_keep_the_study(clients: list[Client]) -> None:
    clients[0].create_study(EXTERNAL)

    def crash_at_the_second() -> None:
        for trial in clients[0].external("x"):
            if trial.number == 1:
                raise ZeroDivisionError
            train(trial)

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            crash_at_the_second()
    crash_at_the_second()
    found = clients[0].study("x").trials
    assert (found.complete, found.fail) == (3, 1)


def test_who_stops_after_a_trial_gives_nothing_back(clients: list[Client]) -> None:
    clients[0].create_study(EXTERNAL)
    for trial in clients[0].external("x"):
        train(trial)
        break
    found = clients[0].study("x").trials
    assert (found.complete, found.waiting, found.running) == (1, 0, 0)


def test_a_loop_that_ends_no_trial_is_told_so(clients: list[Client]) -> None:
    clients[0].create_study(EXTERNAL)
    trials = iter(clients[0].external("x"))
    next(trials).report(1, {"error": 1.0})
    with pytest.raises(RuntimeError, match=r"trial 0 of x was left open: call its complete"):
        next(trials)
    (run,) = clients[0].trial("x", 0).runs
    assert (run.state, run.charges) == ("WAITING", 1)


def test_a_program_that_comes_back_goes_on_with_its_trial(clients: list[Client]) -> None:
    clients[0].create_study(EXTERNAL)
    (before,) = clients[0].external("x", client_id="me").suggest()
    before.report(1, {"error": 3.0})
    clients[0].close()
    for trial in clients[1].external("x", client_id="me"):
        assert trial.number != 0 or trial.attempt == before.attempt
        trial.complete(1.0)
    assert [trial.number for trial in clients[1].trials("x")] == [0, 1, 2, 3]
    assert clients[1].trial("x", 0).epochs[0].metrics == {"error": 3.0}
