"""Two api processes are told different things of one trial, or the same twice, at one moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from random import Random
from typing import Any

import httpx

from tests.chaos import oracle
from tests.chaos.by_hand import DATASET, Callers, HandWorker, connect
from tests.chaos.campaign import Tally, campaign
from tests.chaos.kills import DYING_API
from tests.chaos.program import SPEC
from tests.chaos.rig import Rig
from tests.chaos.studies import study
from tests.deployment import Deployment

_MAX_WRITERS = 4
_RACES_A_PART = 200
_CREATES_A_PART = 25
_STALE = "urn:ridgeline:stale-attempt"
_IN_FLIGHT = "urn:ridgeline:request-in-flight"


@contextmanager
def second_api(rig: Rig, *, start: bool = True) -> Iterator[Deployment]:
    """Another api process on the same database; `start` says whether it runs already."""
    home = rig.home / "second"
    home.mkdir(exist_ok=True)
    other = Deployment(rig.url, home, rig.settings)
    try:
        if start:
            other.start_api()
        yield other
    finally:
        other.close()


@campaign("races", target=1_000, num_workers=0, settings={"RIDGELINE_LEASE_SECONDS": "600"})
def race(rig: Rig, random: Random, count: int) -> Tally:
    """Two to four writers end one trial: a program's, or a worker's run that others claim too."""
    tally = Tally()
    with ExitStack() as stack:
        other = stack.enter_context(second_api(rig))
        callers = Callers(stack, [rig.deployment.url, other.url], _MAX_WRITERS)
        owner = HandWorker(callers.https[0])
        rivals = [HandWorker(http) for http in callers.https]
        external = rig.post(SPEC)
        task = {"name": "mlp", "dataset": DATASET["name"]}
        trained = rig.post(study("races", trials=_RACES_A_PART, epochs=1, task=task))
        values: dict[str, dict[int, float]] = {external: {}, trained: {}}
        for index in range(min(count, _RACES_A_PART)):
            if index % 2:
                _race_of_programs(rig, random, callers, external, values[external], tally)
            else:
                _race_of_workers(random, callers, owner, rivals, trained, values[trained], tally)
            tally.injected += 1
        for name in values:
            rig.client.stop(name)
            numbers = rig.ask(
                "SELECT t.number, t.value FROM rl_trials t JOIN rl_studies s ON s.id = t.study_id"
                " WHERE s.name = :name",
                name=name,
            )
            tally.add(
                oracle.check(rig.url, name, num_trials=len(numbers), max_charges=rig.max_charges)
            )
            for number, value in numbers:
                if value != values[name].get(number):
                    tally.wrong_values += 1
                    tally.problems.append(
                        f"{name}: trial {number} has {value}, its winner said "
                        f"{values[name].get(number)}"
                    )
    return tally


def _race_of_programs(
    rig: Rig,
    random: Random,
    callers: Callers,
    study: str,
    values: dict[int, float],
    tally: Tally,
) -> None:
    num_writers = random.randint(2, _MAX_WRITERS)
    answer = callers.https[0].post(f"/v1/studies/{study}/trials:suggest", json={})
    (trial,) = answer.json()["trials"]
    number = trial["number"]
    path = f"/v1/studies/{study}/trials/{number}:complete"
    said = [random.random() for _ in range(num_writers)]
    answers = callers.crowd.at_once(
        [
            partial(http.post, path, json={"attempt": trial["attempt"], "value": value})
            for http, value in zip(callers.https, said, strict=False)
        ]
    )
    winners = [value for value, answer in zip(said, answers, strict=True) if answer.is_success]
    losers = [answer for answer in answers if not answer.is_success]
    _count_winners(tally, f"{study}: trial {number}", winners)
    for answer in losers:
        if answer.json()["type"] != _STALE:
            tally.problems.append(f"{study}: trial {number}, a loser is told {answer.text}")
    values[number] = winners[0]


def _race_of_workers(
    random: Random,
    callers: Callers,
    owner: HandWorker,
    rivals: list[HandWorker],
    study: str,
    values: dict[int, float],
    tally: Tally,
) -> None:
    """The worker that has the run, and others that say they had it."""
    num_writers = random.randint(2, _MAX_WRITERS)
    (order,) = owner.take(1)
    key = {"run": order["run"], "attempt": order["attempt"]}
    place = random.randrange(num_writers)
    said = [random.random() for _ in range(num_writers)]
    writers = [owner if index == place else rivals[index] for index in range(num_writers)]
    statements = [
        writer.statement(ended=[{**key, "outcome": "complete", "value": value}])
        for writer, value in zip(writers, said, strict=True)
    ]
    answers = callers.crowd.at_once(
        [
            partial(writer.send, statement, http)
            for writer, statement, http in zip(writers, statements, callers.https, strict=False)
        ]
    )
    taken = [
        value
        for value, answer in zip(said, answers, strict=True)
        if answer.is_success and not answer.json()["refused"]
    ]
    what = f"{study}: run {order['run']}"
    _count_winners(tally, what, taken)
    if taken != [said[place]]:
        tally.problems.append(f"{what}: {taken} was taken, its worker said {said[place]}")
    tally.problems += [f"{what}: {answer.text}" for answer in answers if not answer.is_success]
    values[order["trial"]] = said[place]


def _count_winners(tally: Tally, what: str, winners: list[float]) -> None:
    tally.count("winners", len(winners))
    if len(winners) != 1:
        tally.lost += not winners
        tally.twice += max(0, len(winners) - 1)
        tally.problems.append(f"{what} has {len(winners)} winners")


@campaign("repeated-creates", target=100, num_workers=0)
def repeat_creates(rig: Rig, random: Random, count: int) -> Tally:
    """One study is created by two to four requests with one key, sent to two apis at one moment."""
    tally = Tally()
    with ExitStack() as stack:
        other = stack.enter_context(second_api(rig))
        callers = Callers(stack, [rig.deployment.url, other.url], _MAX_WRITERS)
        for index in range(min(count, _CREATES_A_PART)):
            name = f"created-{os.getpid()}-{random.getrandbits(64)}"
            post = partial(_create, name=name)
            https = callers.https[: random.randint(2, _MAX_WRITERS)]
            answers = callers.crowd.at_once([partial(post, http) for http in https])
            answers.append(post(callers.https[index % _MAX_WRITERS]))  # once all are answered
            _check_created(rig, name, answers, tally)
            tally.injected += 1
    return tally


@campaign("create-killed", target=200, num_workers=0)
def kill_creates(rig: Rig, random: Random, count: int) -> Tally:
    """The api is killed before or after a study is committed, and the client asks again."""
    tally = Tally()
    for moment in ("before", "after")[: min(count, 2)]:
        name = f"created-{os.getpid()}-{random.getrandbits(64)}"
        rig.deployment.kill(rig.deployment.api)
        rig.deployment.start_api("-m", DYING_API, "operation", moment, "1")
        with connect(rig.deployment.url) as http:
            try:
                answer = _create(http, name)
            except httpx.TransportError:
                pass
            else:
                tally.problems.append(f"{name} was answered with {answer.text}")
            rig.deployment.api.wait()
            rig.deployment.start_api()
            answers = [_create(http, name), _create(http, name)]
        _check_created(rig, name, answers, tally)
        tally.injected += 1
    return tally


def _create(http: httpx.Client, name: str) -> httpx.Response:
    key = {"Idempotency-Key": f"create {name}"}
    return http.post("/v1/studies", json={**SPEC, "name": name}, headers=key)


def _check_created(rig: Rig, name: str, answers: list[httpx.Response], tally: Tally) -> None:
    """One study, and the same answer to all but those told that the first is in flight."""
    bodies = []
    for answer in answers:
        body: Any = answer.json()
        if answer.is_success:
            bodies.append(body)
            tally.count("answered alike")
        elif body["type"] == _IN_FLIGHT:
            tally.count("told to wait")
        else:
            tally.problems.append(f"{name} is answered with {answer.text}")
    if not bodies:
        tally.lost += 1
        tally.problems.append(f"nobody is told that {name} was created")
    elif any(body != bodies[0] for body in bodies):
        tally.problems.append(f"{name}: the answers differ: {bodies}")
    (num_studies,) = rig.ask("SELECT count(*) FROM rl_studies WHERE name = :name", name=name)[0]
    if num_studies != 1:
        tally.lost += not num_studies
        tally.twice += max(0, num_studies - 1)
        tally.problems.append(f"there are {num_studies} studies {name}")
