"""The service as the client of an external study meets it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from ridgeline.service.client import Client
from ridgeline.service.external import ExternalStudy, ExternalTrial

URL = "http://127.0.0.1:8000"


@dataclass
class Desk(httpx.BaseTransport):
    """Answers like the service, as far as a program can tell, and keeps what it was sent.

    While `is_down`, no connection comes about; while `is_silent`, no answer.
    """

    is_down: bool = False
    is_silent: bool = False
    prune_above: float = 9.0
    stale: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    max_bytes: int = 10**9
    refusal: tuple[int, str] | None = None
    """Status and detail that every call is answered with."""
    calls: list[list[dict[str, Any]]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    num_suggested: int = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.is_down:
            raise httpx.ConnectError("refused")
        if len(request.content) > self.max_bytes:
            detail = "the body is larger than the limit"
            return httpx.Response(413, json={"title": "Too large", "detail": detail})
        if self.refusal is not None:
            status, detail = self.refusal
            return httpx.Response(status, json={"title": "Refused", "detail": detail})
        body = json.loads(request.content)
        if request.url.path.endswith(":suggest"):
            return httpx.Response(200, json=self._suggest(body["count"]))
        assert request.url.path == "/v1/studies/s/trials:report"
        self.calls.append(body["trials"])
        self.keys.append(request.headers.get("Idempotency-Key"))
        if self.is_silent:
            raise httpx.ReadTimeout("no answer")
        return httpx.Response(200, json={"trials": [self._outcome(t) for t in body["trials"]]})

    def _suggest(self, count: int) -> dict[str, Any]:
        trials = [
            {"number": n, "attempt": 1, "config": {"x": 0.5}, "seed": 7, "lease_seconds": 60.0}
            for n in range(self.num_suggested, self.num_suggested + count)
        ]
        self.num_suggested += count
        return {"trials": trials, "state": "RUNNING", "reason": None}

    def _outcome(self, told: dict[str, Any]) -> dict[str, Any]:
        outcome = {"number": told["number"], "state": "RUNNING", "value": None, "error": None}
        values = [epoch["metrics"]["score"] for epoch in told["epochs"]]
        outcome["should_prune"] = any(value > self.prune_above for value in values)
        if told["number"] in self.stale:
            detail = f"trial {told['number']} is somebody else's"
            problem = {"type": "urn:ridgeline:stale-attempt", "title": "Stale attempt"}
            outcome["error"] = {**problem, "status": 409, "detail": detail, "errors": []}
        if told["number"] in self.refused:
            problem = {"type": "urn:ridgeline:invalid-input", "title": "Invalid input"}
            detail = "a complete trial needs a value"
            outcome["error"] = {**problem, "status": 422, "detail": detail, "errors": []}
        return outcome

    def told(self) -> list[list[tuple[int, list[int], bool]]]:
        """By call: trial, its epochs, and whether it ended."""
        return [
            [(t["number"], [e["epoch"] for e in t["epochs"]], t["end"] is not None) for t in call]
            for call in self.calls
        ]


@dataclass
class Clock:
    seconds: float = 0.0

    def __call__(self) -> float:
        return self.seconds


def study_of(client: Client, clock: Clock, **changes: Any) -> ExternalStudy:
    values: dict[str, Any] = {"has_pruner": False, "lease_seconds": 60.0, **changes}
    return ExternalStudy(client, "s", clock=clock, **values)


def report(trial: ExternalTrial, *epochs: int, score: float = 0.5) -> None:
    for epoch in epochs:
        trial.report(epoch, {"score": score})
