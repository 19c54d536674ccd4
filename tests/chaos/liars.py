"""A worker that lies, beside one that does not."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing
from random import Random
from typing import Any

import httpx

from tests.chaos.by_hand import HandWorker, connect
from tests.chaos.campaign import Tally, campaign
from tests.chaos.rig import Rig
from tests.chaos.studies import study

_LIES_A_PART = 100
_NO_RUN = 2**40


class Liar:
    """Lies of many kinds, each of which must be refused or change nothing.

    What it says of the runs that it really has is taken back with them: it releases each.
    """

    def __init__(self, rig: Rig, http: httpx.Client, random: Random, tally: Tally) -> None:
        self._rig = rig
        self._http = http
        self._random = random
        self._tally = tally
        (honest,) = [one for one in rig.client.workers() if one.state == "LIVE"]
        self._honest = honest.id
        (dataset,) = [one for one in honest.datasets if one.name == "digits"]
        self._worker = HandWorker(
            http, num_slots=10_000, dataset=dataset.model_dump(exclude={"smallest_class"})
        )
        self._lies: list[Callable[[], None]] = [
            self.say_it_again,
            self.say_old_things,
            self.end_the_runs_of_another,
            self.report_other_attempts,
            self.report_epochs_in_disorder,
            self.end_a_run_twice,
            self.send_what_is_no_number,
            self.have_ten_thousand_slots,
            self.have_trained_for_decades,
            self.name_what_there_is_not,
        ]

    def lie(self) -> None:
        lie = self._random.choice(self._lies)
        lie()
        self._tally.count(lie.__name__)

    def leave(self) -> None:
        self._take(200, self._worker.statement(leaving=True))

    # ---- lies

    def say_it_again(self) -> None:
        said = self._worker.statement(free_slots={"cpu:0": 2})
        first = self._take(200, said)
        again = self._take(200, said)
        if [order["run"] for order in again["start"]][: len(first["start"])] != [
            order["run"] for order in first["start"]
        ]:
            self._complain(f"{first['start']} was followed by {again['start']}")
        self._release(again["start"])

    def say_old_things(self) -> None:
        old = self._worker.statement(free_slots={"cpu:0": 1})
        self._take(200, self._worker.statement())
        self._take(409, old)

    def end_the_runs_of_another(self) -> None:
        for run, attempt in self._held_by_another():
            value = self._random.choice([0.5, 1e308, -1e308])
            end = {"run": run, "attempt": attempt, "outcome": "complete", "value": value}
            self._is_refused(ended=[end])
            metrics = {"validation_accuracy": value}
            report = {"run": run, "attempt": attempt, "epoch": 1, "metrics": metrics}
            self._is_refused(reports=[report])

    def report_other_attempts(self) -> None:
        orders = self._worker.take(1)
        for order in orders:
            other = {"run": order["run"], "attempt": order["attempt"] + 1}
            self._is_refused(ended=[{**other, "outcome": "complete", "value": 0.5}])
        self._release(orders)

    def report_epochs_in_disorder(self) -> None:
        orders = self._worker.take(1)
        for order in orders:
            epochs = [self._random.randint(1, 60) for _ in range(5)]
            key = {"run": order["run"], "attempt": order["attempt"]}
            reports = [
                {**key, "epoch": epoch, "metrics": {"validation_accuracy": 1.0}} for epoch in epochs
            ]
            self._take(200, self._worker.statement(reports=reports))
        self._release(orders)

    def end_a_run_twice(self) -> None:
        orders = self._worker.take(1)
        ended = [self._released(order) for order in orders]
        self._take(200, self._worker.statement(ended=ended * 2))
        for end in ended:
            self._take(200, self._worker.statement(ended=[{**end, "outcome": "crashed"}]))
            self._is_refused(ended=[{**end, "outcome": "complete", "value": 0.5}])

    def send_what_is_no_number(self) -> None:
        for value in ("NaN", "Infinity", "1e999", "-1e999"):
            end = {"run": 1, "attempt": 1, "outcome": "complete", "value": 0.125}
            text = json.dumps(self._worker.statement(ended=[end])).replace("0.125", value)
            self._answer((400, 422), self._post(content=text))

    def have_ten_thousand_slots(self) -> None:
        self._answer((422,), self._post(json=self._worker.statement(free_slots={"cpu:0": 10_001})))
        self._release(self._worker.take(10_000))

    def have_trained_for_decades(self) -> None:
        orders = self._worker.take(1)
        self._release(orders, device_seconds=1e9)
        for order in orders:
            end = self._released(order, device_seconds=1e10)
            self._answer((422,), self._post(json=self._worker.statement(ended=[end])))

    def name_what_there_is_not(self) -> None:
        self._answer((422,), self._post(json=self._worker.statement(free_slots={"cpu:9": 1})))
        end = {"run": _NO_RUN, "attempt": 1, "outcome": "complete", "value": 0.5}
        self._is_refused(ended=[end])

    # ---- calls

    def _held_by_another(self) -> list[tuple[int, int]]:
        rows = self._rig.ask(
            "SELECT id, attempt FROM rl_runs WHERE worker_id = :worker AND state = 'RUNNING'"
            " ORDER BY id LIMIT 2",
            worker=self._honest,
        )
        return [(run, attempt) for run, attempt in rows]

    def _released(self, order: dict[str, Any], **changes: Any) -> dict[str, Any]:
        return {
            "run": order["run"],
            "attempt": order["attempt"],
            "outcome": "released",
            **changes,
        }

    def _release(self, orders: list[dict[str, Any]], **changes: Any) -> None:
        ended = [self._released(order, **changes) for order in orders]
        answer = self._take(200, self._worker.statement(ended=ended))
        if answer.get("refused"):
            self._complain(f"it may not give back {answer['refused']}")

    def _is_refused(self, **parts: Any) -> None:
        answer = self._take(200, self._worker.statement(**parts))
        if len(answer["refused"]) != 1:
            self._complain(f"{parts} is not refused")

    def _take(self, status: int, statement: dict[str, Any]) -> Any:
        return self._answer((status,), self._post(json=statement))

    def _post(self, **body: Any) -> httpx.Response:
        headers = {"Content-Type": "application/json"}
        return self._http.post(f"/v1/workers/{self._worker.id}:sync", headers=headers, **body)

    def _answer(self, statuses: tuple[int, ...], answer: httpx.Response) -> Any:
        if answer.status_code not in statuses:
            self._complain(f"{answer.status_code} {answer.text[:300]}, not {statuses}")
        return answer.json()

    def _complain(self, problem: str) -> None:
        self._tally.problems.append(f"liar: {problem}")


@campaign("lying-worker", target=1_000, num_workers=1, settings={"RIDGELINE_LEASE_SECONDS": "10"})
def lie(rig: Rig, random: Random, count: int) -> Tally:
    """A worker says what is not so; the honest one trains what the undisturbed study has."""
    tally = Tally()
    spec = study("lying-worker", epochs=rig.num_epochs)
    rig.undisturbed(spec)
    began = time.monotonic()
    name = rig.post(spec)
    rig.wait_for(lambda: rig.client.study(name).trials.running, "the honest worker to begin")
    with closing(connect(rig.deployment.url)) as http:
        liar = Liar(rig, http, random, tally)
        while tally.injected < min(count, _LIES_A_PART) and not rig.has_ended(name):
            liar.lie()
            tally.injected += 1
        liar.leave()
    tally.add(rig.check_undisturbed(name, spec))
    (longest,) = rig.ask(
        "SELECT MAX(r.device_seconds) FROM rl_runs r JOIN rl_studies s ON s.id = r.study_id"
        " WHERE s.name = :name",
        name=name,
    )[0]
    if longest > time.monotonic() - began:
        tally.problems.append(f"{name}: a run has trained for {longest} seconds")
    return tally
