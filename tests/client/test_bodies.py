"""What programs hand over becomes what the service takes, or an error that names the field."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from ridgeline.search.spec import StudySpec
from ridgeline.service.bodies import MAX_DEPTH, plain
from ridgeline.service.client import ApiError, Client
from tests.client.test_client_calls import SPEC, STUDY, URL, Script

NOT_FINITE = [math.nan, math.inf, -math.inf, np.float64("nan"), np.float32("inf")]


class Sent(Script):
    """Answers every call with a study, and has what was sent."""

    def __init__(self) -> None:
        super().__init__(*[httpx.Response(200, json=STUDY)] * 9)

    @property
    def body(self) -> Any:
        return json.loads(self.requests[-1].content)


def client_of(sent: Sent) -> Client:
    return Client(URL, transport=sent)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.array(2.5), 2.5),
        (np.arange(3), [0, 1, 2]),
        ((np.int32(1), 2.0), [1, 2.0]),
        ([np.array([[1.0]])], [[[1.0]]]),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        ({"a": {"b": np.int8(1)}}, {"a": {"b": 1}}),
        (None, None),
    ],
    ids=repr,
)
def test_numbers_of_numpy_and_torch_are_numbers(given: Any, expected: Any) -> None:
    assert repr(plain(given)) == repr(expected)


def test_a_spec_may_hold_numbers_of_numpy() -> None:
    parameter = {"type": "float", "low": np.float32(0.5), "high": np.int64(2)}
    values = {"type": "values", "values": np.array([16, 32])}
    sent = Sent()
    with client_of(sent) as client:
        client.create_study({**SPEC, "space": {"x": parameter, "n": values}})
    assert sent.body["space"] == {
        "x": {"type": "float", "low": 0.5, "high": 2},
        "n": {"type": "values", "values": [16, 32]},
    }


def test_a_spec_goes_out_as_its_author_wrote_it() -> None:
    """The service has to see what was left out: an external study must say its objective."""
    sent = Sent()
    with client_of(sent) as client:
        client.create_study(StudySpec.model_validate(SPEC))
    assert sent.body == SPEC


@pytest.mark.parametrize("number", NOT_FINITE, ids=repr)
def test_what_is_not_finite_is_refused_by_its_field(number: float) -> None:
    with client_of(Sent()) as client:
        for call, field in (
            (lambda: client.create_study({**SPEC, "budget": {"trials": number}}), "budget.trials"),
            (lambda: client.enqueue("s", [{"x": 1}, {"x": number}]), "configs.1.x"),
            (
                lambda: client.report("s", 0, attempt=1, epoch=1, metrics={"loss": number}),
                "metrics.loss",
            ),
            (
                lambda: client.complete("s", 0, attempt=1, metrics={"test/loss": number}),
                "metrics.test/loss",
            ),
            (lambda: client.complete("s", 0, attempt=1, value=number), "value"),
        ):
            with pytest.raises(ApiError, match="must be a finite number") as caught:
                call()
            assert caught.value.status == 422
            assert [name for name, _ in caught.value.problems] == [field]
            hinted = 'state="FAIL" and reason="diverged"' in str(caught.value)
            assert hinted == field.startswith(("metrics", "value"))


@pytest.mark.parametrize(
    ("spec", "field", "reason"),
    [
        ({"budget": {"trials": {1, 2}}}, "budget.trials", "is a set, which JSON does not have"),
        ({"budget": {"trials": 1j}}, "budget.trials", "is a complex, which JSON does not have"),
        ({"space": {1: {}}}, "space", "the name 1 must be a text"),
        ({"space": np.array([1.0, math.nan])}, "space.1", "must be a finite number, not nan"),
    ],
)
def test_what_json_does_not_have_is_refused(spec: dict[str, Any], field: str, reason: str) -> None:
    with client_of(Sent()) as client, pytest.raises(ApiError) as caught:
        client.create_study({**SPEC, **spec})
    assert caught.value.problems == [(field, reason)]


def test_what_holds_itself_is_refused() -> None:
    deep: list[Any] = []
    deep.append(deep)
    with client_of(Sent()) as client, pytest.raises(ApiError, match=f"more than {MAX_DEPTH}"):
        client.create_study({**SPEC, "space": deep})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"epoch": 0, "metrics": {}}, "epoch"),
        ({"epoch": 1, "metrics": {"loss": "low"}}, "metrics.loss"),
        ({"epoch": 1, "metrics": {"lo\nss": 1.0}}, "metrics.lo\nss"),
        ({"epoch": 1, "metrics": [1.0]}, "metrics"),
    ],
)
def test_what_cannot_be_reported_is_an_error_of_ours(fields: dict[str, Any], field: str) -> None:
    with client_of(Sent()) as client, pytest.raises(ApiError) as caught:
        client.report("s", 0, attempt=1, **fields)
    assert [name for name, _ in caught.value.problems] == [field]
    with client_of(Sent()) as client, pytest.raises(ApiError, match="count"):
        client.suggest("s", count=0)
