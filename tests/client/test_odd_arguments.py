"""Whatever stands for an argument of the client, a call ends well or in an error of its own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from ridgeline.service.client import ApiError, Client, ClientError
from tests.api.calling import EXTERNAL, sqlite_only
from tests.service.test_comparisons import SPEC as COMPARISON

GIVEN: dict[str, dict[str, Any]] = {
    "create_study": {"spec": {**EXTERNAL, "name": "n"}},
    "study": {"name": "x"},
    "studies": {},
    "pause": {"name": "x"},
    "resume": {"name": "x"},
    "stop": {"name": "x"},
    "cancel": {"name": "x"},
    "archive": {"name": "x"},
    "unarchive": {"name": "x"},
    "extend": {"name": "x", "trials": 1},
    "retry": {"name": "x"},
    "clone": {"name": "x", "new_name": "n", "changes": {"priority": 1}},
    "delete": {"name": "x"},
    "best": {"name": "x"},
    "export": {"name": "x"},
    "study_report": {"name": "x"},
    "create_comparison": {"spec": {**COMPARISON, "name": "n"}},
    "comparison": {"name": "x"},
    "comparisons": {},
    "comparison_report": {"name": "x"},
    "pause_comparison": {"name": "x"},
    "resume_comparison": {"name": "x"},
    "cancel_comparison": {"name": "x"},
    "extend_comparison": {"name": "x", "trials": 1},
    "add_arms": {"name": "x", "arms": ["l1"]},
    "delete_comparison": {"name": "x"},
    "events": {"name": "x"},
    "external": {"study": "x"},
    "trials": {"study": "x"},
    "trial": {"study": "x", "number": 0},
    "explain": {"study": "x", "number": 0},
    "enqueue": {"study": "x", "configs": [{"depth": 1}]},
    "suggest": {"study": "x"},
    "report_trials": {"study": "x", "reports": []},
    "report": {"study": "x", "number": 0, "attempt": 1, "epoch": 1, "metrics": {"error": 1.0}},
    "complete": {"study": "x", "number": 0, "attempt": 1, "value": 1.0},
}
"""The calls of people's programs, with arguments that can be used."""

NOT_OF_PEOPLE = {
    *("close", "tasks", "datasets", "workers", "is_ready", "why_not_ready"),
    *("register_worker", "sync", "put_checkpoint", "get_checkpoint"),
}
"""They take no argument, or only messages that workers make."""

ODD = [
    math.nan,
    math.inf,
    -1,
    0,
    2**70,
    1.5,
    True,
    "",
    "\ud800",
    "\x00",
    "a\nb",
    "../workers",
    "x" * 5_000,
    [],
    ["x"],
    ["\ud800"],
    {"\ud800": 1},
    {"a": math.nan},
    {1: 2},
    {1, 2},
    b"\xff",
    object(),
    None,
    np.int64(3),
    np.float64("nan"),
    np.array([1, 2]),
]

ARGUMENTS = [
    (call, argument)
    for call in GIVEN
    for argument in inspect.signature(getattr(Client, call)).parameters
    if argument != "self"
]


def test_every_call_is_tried() -> None:
    calls = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if name[0] != "_"}
    assert calls - NOT_OF_PEOPLE == GIVEN.keys()


@sqlite_only
@pytest.mark.parametrize(("call", "argument"), ARGUMENTS)
def test_an_odd_argument_is_an_error_of_ours(call: str, argument: str, client: Client) -> None:
    client.create_study(EXTERNAL)
    client.create_comparison({**COMPARISON, "name": "x"})
    if call == "delete_comparison":
        client.cancel_comparison("x")
    if call == "events":
        client.cancel("x")  # or they have no end
    for odd in ODD:
        try:
            found = getattr(client, call)(**{**GIVEN[call], argument: odd})
            if isinstance(found, Iterator):
                list(found)
        except Exception as exc:
            if not isinstance(exc, ClientError) or "\n" in str(exc):
                pytest.fail(f"{call}({argument}={odd!r}): {exc!r}")


@sqlite_only
@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.extend("x", trials=np.int64(1)),
        lambda client: client.extend("x", trials=np.float64(1)),
        lambda client: client.clone("x", "y", {"priority": np.int64(3)}),
        lambda client: client.clone("x", "y", {"budget": {"trials": np.array(3)}}),
        lambda client: client.enqueue("x", ({"depth": np.int64(one)} for one in (1, 2))),
        lambda client: client.enqueue("x", np.array([{"depth": 1}])),
        lambda client: client.suggest("x", count=np.int64(1), lease_seconds=np.float32(60)),
        lambda client: client.retry("x", reasons={"crashed"}),
    ],
)
def test_numbers_of_numpy_are_taken(call: Callable[[Client], Any], client: Client) -> None:
    client.create_study(EXTERNAL)
    call(client)


@sqlite_only
def test_numbers_of_numpy_name_trials(client: Client) -> None:
    client.create_study(EXTERNAL)
    (trial,) = client.suggest("x").trials
    number: Any = np.int64(trial.number)
    told: dict[str, Any] = {"attempt": np.int64(trial.attempt), "epoch": np.int64(1)}
    client.report("x", number, **told, metrics={"error": np.float32(2)})  # type: ignore[dict-item]
    end: dict[str, Any] = {"attempt": np.int64(trial.attempt), "value": np.float32(1.5)}
    assert client.complete("x", number, **end).value == 1.5
    assert client.trial("x", number).value == 1.5


@sqlite_only
def test_a_new_name_is_given_once(client: Client) -> None:
    client.create_study(EXTERNAL)
    with pytest.raises(ApiError, match="name: is given beside new_name"):
        client.clone("x", "y", {"name": "z"})
    assert client.clone("x", "y", {"name": "y"}).name == "y"
