"""Two api processes are told different ends of one trial at one moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from random import Random

from tests.chaos import oracle
from tests.chaos.by_hand import DATASET, Callers, HandWorker
from tests.chaos.campaign import Tally, campaign
from tests.chaos.program import SPEC
from tests.chaos.rig import Rig
from tests.chaos.studies import study
from tests.deployment import Deployment

MAX_WRITERS = 4
_RACES_A_PART = 200
_STALE = "urn:ridgeline:stale-attempt"


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
        callers = Callers(stack, [rig.deployment.url, other.url], MAX_WRITERS)
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
    num_writers = random.randint(2, MAX_WRITERS)
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
    num_writers = random.randint(2, MAX_WRITERS)
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
