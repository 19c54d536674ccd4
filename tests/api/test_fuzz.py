"""Whatever is sent, the answer is never a 5xx, and every refusal is a problem.

`tests/fuzz` makes its requests of the document.  Here are those that no schema makes: good ones
with a part spoilt, NaN, numbers of 400 digits, halves of surrogate pairs.
"""

from __future__ import annotations

import copy
import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ridgeline.service import tokens
from ridgeline.service.api import examples, external_examples
from ridgeline.service.store.session import Store
from tests.api.calling import EXTERNAL, ok, problem
from tests.api.conftest import ClientOf

BODIES: dict[str, list[Any]] = {
    "/v1/studies": [examples.TPE_SPEC, examples.GRID_SPEC, examples.EXTERNAL_SPEC],
    "/v1/studies/x/trials:enqueue": [{"configs": [{"depth": 3}]}],
    "/v1/studies/x/trials:suggest": [{"count": 2, "lease_seconds": 60.0}],
    "/v1/studies/x/trials:report": [external_examples.REPORTS],
    "/v1/studies/x/trials/0:report": [external_examples.REPORT, external_examples.REPORT_EPOCHS],
    "/v1/studies/x/trials/0:complete": [{**external_examples.COMPLETE, "metrics": {"error": 1}}],
    "/v1/studies/x:pause": [{}],
    "/v1/studies/x:resume": [{}],
    "/v1/studies/y:stop": [{}],
    "/v1/studies/y:cancel": [{}],
    "/v1/studies/x:extend": [examples.EXTEND, examples.EXTEND_TIME],
    "/v1/studies/x:retry": [examples.RETRY],
    "/v1/studies/x:clone": [examples.CLONE],
    "/v1/workers": [examples.REGISTRATION],
    "/v1/workers/WORKER:sync": [{**examples.SYNC, "leaving": False}],
    "/v1/tokens": [examples.TOKEN_REQUEST],
    "/v1/tokens/0:revoke": [{}],
}

_ODD_NUMBERS = (0, -1, 0.5, 1e300, 5e-324, 2**31, 2**53, 2**53 + 1, 2**70, 10**400, 1e-320)
_ODD_TEXTS = ("", "a" * 1_000, "a\x00b", "\ud800", "é\u202e", "../..", "nan", "1", "=1+1")
_ODD_OTHERS: tuple[Any, ...] = (
    None,
    True,
    float("nan"),
    float("inf"),
    [],
    {},
    [[[]]],
    {"": {}},
    ["digits"] * 50,
)
_odd = st.sampled_from((*_ODD_NUMBERS, *_ODD_TEXTS, *_ODD_OTHERS))
_json = st.recursive(
    _odd | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all that is in a JSON value."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    return [path] + [place for key, item in items for place in _places(item, (*path, key))]


@st.composite
def _spoiled(draw: st.DrawFn, bodies: list[Any]) -> Any:
    """A good body with one to three of its parts replaced, removed or added to."""
    body = {"body": copy.deepcopy(draw(st.sampled_from(bodies)))}
    for _ in range(draw(st.integers(0, 3))):
        *above, last = draw(st.sampled_from(_places(body)[1:]))
        place: Any = body
        for key in above:
            place = place[key]
        part = copy.deepcopy(draw(_json))  # the parts of `_odd` are shared
        match draw(st.sampled_from(["replace", "replace", "remove", "add"])):
            case "replace":
                place[last] = part
            case "remove" if isinstance(place, dict) and place is not body:
                del place[last]
            case _ if isinstance(place, dict) and place is not body:
                place[draw(st.text(max_size=5))] = part
    return body["body"]


@pytest.fixture
def client(app: FastAPI, store: Store, client_of: ClientOf) -> httpx.Client:
    """An admin's client of a service with a worker and two external studies."""
    with store.transaction() as tx:
        _, text = tokens.create(tx, "fuzz", ["admin"])
    client = client_of(app, text)
    for name in ("x", "y"):
        ok(client.post("/v1/studies", json={**EXTERNAL, "name": name}), 201)
        ok(client.post(f"/v1/studies/{name}/trials:suggest"))
    return client


def check(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        problem(answer, answer.status_code)


@pytest.mark.parametrize("path", BODIES)
def test_bodies(client: httpx.Client, path: str) -> None:
    worker = ok(client.post("/v1/workers", json=examples.REGISTRATION), 201)["id"]
    path = path.replace("WORKER", worker)
    bodies = BODIES[path.replace(worker, "WORKER")]

    @hypothesis_settings(deadline=None, max_examples=40)
    @given(_spoiled(bodies) | _json)
    def send(body: Any) -> None:
        headers = {"Content-Type": "application/json"}
        check(client.post(path, content=json.dumps(body).encode(), headers=headers))

    send()


@hypothesis_settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(st.sampled_from(["studies", "trials", "x", "0", ":", "events"]) | st.text(max_size=6)),
    st.sampled_from(["page_size", "page_token", "state", "after"]),
    st.text(max_size=12),
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\x00"), max_size=12),
)
def test_paths_and_parameters(
    client: httpx.Client, parts: list[str], name: str, value: str, header: str
) -> None:
    path = "/".join(quote(part.encode("utf-8", "replace"), safe=":") for part in parts)
    headers = {
        key.encode(): header.encode("latin-1")
        for key in ("If-None-Match", "Idempotency-Key", "Content-Type")
    }
    query = f"{name}={quote(value.encode('utf-8', 'replace'))}"
    for method in ("GET", "POST"):
        url = httpx.URL("http://localhost").copy_with(raw_path=f"/v1/{path}?{query}".encode())
        check(client.request(method, url, headers=headers))
