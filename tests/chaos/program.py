"""A program that trains an external study of its own, and notes how its calls are answered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import httpx

from tests.chaos import oracle
from tests.chaos.campaign import Tally
from tests.chaos.rig import PATIENCE_SECONDS, Rig

SPEC: dict[str, Any] = {
    "name": "program",
    "task": {"name": "external"},
    "space": {"x": {"type": "float", "low": 0, "high": 1}},
    "sampler": {"name": "random", "seed": 5},
    "objective": {"metric": "score", "direction": "minimize"},
    "budget": {"trials": 100_000, "max_parallel": 100},
}

_PAUSE_SECONDS = 0.02
_NOT_NOW = 503


def value_of(number: int) -> float:
    return number / 7


class Program:
    """Trains trials in a thread from its making on.

    A call that is answered with 503 is repeated as it was until it is taken.  Any other answer that
    is no success is a problem.

    Args:
        may_be_cut_off: whether a call that gets no answer at all is repeated too.

    Attributes:
        taken: calls that succeeded.
        refused: calls that did not.
    """

    def __init__(self, rig: Rig, *, may_be_cut_off: bool = False) -> None:
        self.study = rig.post(SPEC)
        self.taken = 0
        self.refused = 0
        self._rig = rig
        self._may_be_cut_off = may_be_cut_off
        self._answers: Counter[str] = Counter()
        self._completed: list[int] = []
        self._problems: list[str] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self) -> Tally:
        """End its trials and the study; what is lost, twice or wrong in it."""
        self._stopping.set()
        self._thread.join(PATIENCE_SECONDS)
        if self._thread.is_alive():
            self._problems.append(f"{self.study}: its program gets no further")
        self._rig.client.stop(self.study)
        rows = self._rig.ask(
            "SELECT t.number, t.state, t.value FROM rl_trials t"
            " JOIN rl_studies s ON s.id = t.study_id WHERE s.name = :study",
            study=self.study,
        )
        tally = oracle.check(
            self._rig.url,
            self.study,
            num_trials=len(rows),
            max_charges=self._rig.max_charges,
        )
        found = {number: (state, value) for number, state, value in rows}
        for number in {*found, *self._completed}:
            wanted = ("COMPLETE", value_of(number))
            if found.get(number) != wanted:
                tally.wrong_values += 1
                tally.problems.append(
                    f"{self.study}: trial {number} has {found.get(number)}, not {wanted}"
                )
        for answer, times in sorted(self._answers.items()):
            tally.count(f"answers {answer}", times)
        tally.problems += self._problems
        return tally

    def _run(self) -> None:
        with httpx.Client(base_url=self._rig.deployment.url, timeout=PATIENCE_SECONDS) as http:
            while not self._stopping.is_set():
                asked = {"count": 2, "client_id": "program"}
                for trial in self._call(http, "trials:suggest", asked)["trials"]:
                    self._train(http, trial["number"], trial["attempt"])

    def _train(self, http: httpx.Client, number: int, attempt: int) -> None:
        path = f"trials/{number}"
        for epoch in (1, 2):
            metrics = {"score": value_of(number) + 2 - epoch}
            report = {"attempt": attempt, "epoch": epoch, "metrics": metrics}
            self._call(http, f"{path}:report", report)
        self._call(http, f"{path}:complete", {"attempt": attempt, "value": value_of(number)})
        self._completed.append(number)

    def _call(self, http: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
        while True:
            try:
                answer = http.post(f"/v1/studies/{self.study}/{path}", json=body)
            except httpx.TransportError as exc:
                self._answers["none"] += 1
                if not self._may_be_cut_off:
                    self._problems.append(f"{path}: {exc!r}")
            else:
                self._answers[str(answer.status_code)] += 1
                if answer.is_success:
                    self.taken += 1
                    found: dict[str, Any] = answer.json()
                    return found
                if answer.status_code != _NOT_NOW:
                    self._problems.append(f"{path}: {answer.text[:500]}")
            self.refused += 1
            time.sleep(_PAUSE_SECONDS)
