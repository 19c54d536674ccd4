"""Operations on studies while the api is killed: repeated until answered, each is done once."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from random import Random
from typing import Any

import httpx

from tests.chaos.campaign import Tally, campaign
from tests.chaos.kills import DYING_API
from tests.chaos.oracle import Values
from tests.chaos.rig import Rig
from tests.chaos.studies import study

NUM_TRIALS = 12
NUM_MORE = 3
NUM_STOPPED = 200

# Some trials diverge at once, and are there to be tried again.
SPACE = {"learning_rate": {"type": "values", "values": [0.01, 0.03, 1e6]}}


class _Enough(Exception):
    """As many faults as wanted."""


@campaign("operation", target=70, settings={"RIDGELINE_LEASE_SECONDS": "15"})
def operate_on_a_study(rig: Rig, random: Random, count: int) -> Tally:
    """Pause, resume, extend, retry, stop and delete one study; the api dies during each."""
    tally = Tally()
    spec = study("operation", trials=NUM_TRIALS, epochs=rig.num_epochs, space=SPACE)
    undisturbed = rig.undisturbed(spec)
    name = rig.post(spec)

    def call(method: str, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        if tally.injected == count:
            raise _Enough
        path = f"/v1/studies/{name}{verb}"
        answer = _call_until_answered(rig, random, tally, method, path, body)
        tally.injected += 1
        return answer

    with suppress(_Enough):
        _operate(rig, name, undisturbed, tally, call)
    return tally


def _operate(
    rig: Rig, name: str, undisturbed: Values, tally: Tally, call: Callable[..., dict[str, Any]]
) -> None:
    def expect(what: str, found: object, expected: object) -> None:
        if found != expected:
            tally.twice += 1
            tally.problems.append(f"{name}: {what} is {found}, not {expected}")

    expect("the state when paused", call("POST", ":pause")["state"], "PAUSED")
    resumed = call("POST", ":resume")["state"]
    # Paused before a worker had begun, it is in the queue again.
    expect("whether it goes on when resumed", resumed in ("QUEUED", "RUNNING"), True)
    call("POST", ":extend", {"trials": NUM_MORE})
    num_trials = NUM_TRIALS + NUM_MORE
    tally.add(rig.check(name, num_trials, undisturbed))

    num_failed = sum(state == "FAIL" for state, *_ in rig.outcomes(name).values())
    call("POST", ":retry", {"reasons": ["diverged"]})
    num_trials += num_failed
    tally.add(rig.check(name, num_trials, undisturbed))
    ((num_retried,),) = rig.ask(
        "SELECT COUNT(DISTINCT t.retry_of) FROM rl_trials t JOIN rl_studies s ON s.id = t.study_id"
        " WHERE s.name = :study",
        study=name,
    )
    expect("the number of trials tried again", num_retried, num_failed)

    call("POST", ":extend", {"trials": NUM_STOPPED})
    call("POST", ":stop")
    rig.wait_until_quiet(name)
    num_created = len(rig.outcomes(name))
    tally.add(rig.check(name, num_created, undisturbed))
    if num_created >= num_trials + NUM_STOPPED:
        tally.count("stopped_too_late")

    expect("the state when deleted", call("DELETE", "")["state"], "COMPLETED")
    expect("what is left", rig.ask("SELECT 1 FROM rl_studies WHERE name = :name", name=name), [])


def _call_until_answered(
    rig: Rig,
    random: Random,
    tally: Tally,
    method: str,
    path: str,
    body: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Kill the api while it performs this call, and repeat the call with the same key."""
    headers = {"Idempotency-Key": str(uuid.uuid4()), "If-Match": "*"}

    def send() -> httpx.Response:
        return httpx.request(
            method, rig.deployment.url + path, json=body or {}, headers=headers, timeout=60
        )

    point = random.choice(("before", "after", "any"))
    tally.count(point if point == "any" else f"{point}_the_commit")
    if point == "any":
        timer = threading.Timer(
            random.uniform(0.0, 0.05), rig.deployment.kill, (rig.deployment.api,)
        )
        timer.start()
    else:
        rig.deployment.kill(rig.deployment.api)
        rig.deployment.start_api("-m", DYING_API, "operation", point, "1")
    try:
        send()
    except httpx.TransportError:
        tally.count("answers_lost")
    rig.wait_for(lambda: rig.deployment.api.poll() is not None, "the api to be dead")
    rig.deployment.start_api()
    answers = [send(), send()]
    while answers[-1].status_code >= 500:
        time.sleep(0.1)
        answers = [send(), send()]
    first, again = answers
    if not first.is_success or first.json() != again.json():
        tally.twice += 1
        tally.problems.append(f"{method} {path}: {first.text}, then {again.text}")
    answer: dict[str, Any] = first.json()
    return answer
