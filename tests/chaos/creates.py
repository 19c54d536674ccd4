"""One study is asked for several times: at one moment, or because the api died."""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import partial
from random import Random
from typing import Any

import httpx

from tests.chaos.by_hand import Callers, connect
from tests.chaos.campaign import Tally, campaign
from tests.chaos.kills import DYING_API
from tests.chaos.program import SPEC
from tests.chaos.races import MAX_WRITERS, second_api
from tests.chaos.rig import Rig

_CREATES_A_PART = 25
_IN_FLIGHT = "urn:ridgeline:request-in-flight"


@campaign("repeated-creates", target=100, num_workers=0)
def repeat_creates(rig: Rig, random: Random, count: int) -> Tally:
    """One study is created by two to four requests with one key, sent to two apis at one moment."""
    tally = Tally()
    with ExitStack() as stack:
        other = stack.enter_context(second_api(rig))
        callers = Callers(stack, [rig.deployment.url, other.url], MAX_WRITERS)
        for index in range(min(count, _CREATES_A_PART)):
            name = f"created-{os.getpid()}-{random.getrandbits(64)}"
            post = partial(_create, name=name)
            https = callers.https[: random.randint(2, MAX_WRITERS)]
            answers = callers.crowd.at_once([partial(post, http) for http in https])
            answers.append(post(callers.https[index % MAX_WRITERS]))  # once all are answered
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
            rig.wait_for(lambda: rig.deployment.api.poll() is not None, "the api to be dead")
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
