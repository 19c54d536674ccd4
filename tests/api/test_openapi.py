"""The OpenAPI document is enough to work from."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ridgeline.search.spec import parse_spec
from ridgeline.service.api import comparison_examples, examples, external_examples
from ridgeline.service.comparison_resources import Comparison
from ridgeline.service.external_protocol import (
    CompleteRequest,
    ReportedTrial,
    ReportOutcomes,
    SuggestResponse,
)
from ridgeline.service.protocol import SyncResponse
from ridgeline.service.resources import CloneRequest, Study, TrialWithHistory
from tests.api.calling import ok, sqlite_only

pytestmark = sqlite_only

ROOT = Path(__file__).parents[2]

ROW = r"^\| `([A-Z]+) (\S+)` \| (\w*) ?\|"


@pytest.fixture
def document(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = ok(client.get("/openapi.json"))
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def unions(part: Any) -> Iterator[dict[str, Any]]:
    """The discriminators that are anywhere in a part of a document."""
    if isinstance(part, dict):
        if isinstance(part.get("discriminator"), dict):
            yield part["discriminator"]
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from unions(one)


def test_every_operation_is_described(document: dict[str, Any]) -> None:
    ids = set()
    for name, operation in operations(document):
        assert operation["summary"], name
        assert len(operation["description"]) > 20, name
        assert operation["tags"], name
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", operation["operationId"]), name
        ids.add(operation["operationId"])
    assert len(ids) == len(list(operations(document)))
    assert ids == examples.ANSWERS.keys()


def test_every_operation_tells_its_problems_and_shows_its_answer(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        answers = operation["responses"]
        errors = {status: answer for status, answer in answers.items() if status >= "400"}
        assert errors or name == "GET /healthz", name
        for status, answer in errors.items():
            (media_type,) = answer["content"]
            assert media_type == "application/problem+json", name
            schema = answer["content"][media_type]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}
            assert answer["content"][media_type]["example"]["status"] == int(status)
        success = min(answers)
        assert all(media["example"] for media in answers[success]["content"].values()), name
        if name.startswith("POST"):
            assert {"400", "408", "413", "415", "422"} <= errors.keys(), name
            content = operation["requestBody"]["content"]["application/json"]
            assert "examples" in content or content["schema"]["$ref"].endswith("Nothing"), name


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    for name in re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)):
        assert name in document["components"]["schemas"]
    assert "HTTPValidationError" not in json.dumps(document)
    assert document["components"]["schemas"]["StudySpec"]["required"] == ["name", "task", "space"]


def test_what_tells_the_members_of_a_union_apart_is_required(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    names = set()
    for union in unions(document):
        names.add(union["propertyName"])
        for member in union["mapping"].values():
            assert union["propertyName"] in schemas[member.rpartition("/")[2]]["required"], member
    assert names == {"kind", "name", "type"}


def test_what_a_request_must_be_is_said(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    space = schemas["Space"]
    assert space["patternProperties"]
    assert space["additionalProperties"] is False
    assert schemas["CloneRequest"]["additionalProperties"] is False
    assert schemas["CloneRequest"]["properties"].keys() == schemas["StudySpec"]["properties"].keys()
    parameters = {
        (name, parameter["name"]): parameter
        for name, operation in operations(document)
        for parameter in operation.get("parameters", ())
    }
    assert "null" not in json.dumps(list(parameters.values()))
    for path in ("/v1/studies/{study}", "/v1/comparisons/{comparison}"):
        assert parameters[f"DELETE {path}", "If-Match"]["required"]


def test_messages_name_operations_that_exist(document: dict[str, Any]) -> None:
    verbs = {path.rpartition(":")[2] for path in document["paths"] if ":" in path}
    named = set()
    for file in (ROOT / "service").rglob("*.py"):
        if "store" in file.parts:
            continue  # there, names after a colon are parameters of SQL
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named |= set(re.findall(r"(?:^|[ `(]):([a-z]+)\b", node.value))
    assert {"extend", "clone"} <= named <= verbs


def test_examples_are_valid(client: httpx.Client) -> None:
    for spec in (examples.TPE_SPEC, examples.GRID_SPEC, examples.EXTERNAL_SPEC):
        parse_spec(spec)
    CompleteRequest.model_validate(external_examples.FAILED)
    CloneRequest.model_validate(examples.CLONE)
    Study.model_validate(examples.ANSWERS["pause_study"])
    Study.model_validate(examples.ANSWERS["cancel_study"])
    ReportedTrial.model_validate(examples.ANSWERS["report_trial"])
    SyncResponse.model_validate(examples.ANSWERS["sync_worker"])
    TrialWithHistory.model_validate(examples.ANSWERS["get_trial"])
    for verb in ("create", "pause", "cancel"):
        Comparison.model_validate(examples.ANSWERS[f"{verb}_comparison"])
    SuggestResponse.model_validate(examples.ANSWERS["suggest_trials"])
    ReportOutcomes.model_validate(examples.ANSWERS["report_trials"])


def test_examples_keep_their_nulls(document: dict[str, Any]) -> None:
    shown = document["paths"]["/v1/studies/{study}"]["get"]["responses"]["200"]["content"]
    assert shown["application/json"]["example"] == examples.ANSWERS["get_study"]


def test_the_examples_can_be_posted(client: httpx.Client) -> None:
    for spec in (examples.TPE_SPEC, examples.GRID_SPEC, examples.EXTERNAL_SPEC):
        ok(client.post("/v1/studies", json=spec), 201)
    ok(client.post("/v1/workers", json=examples.REGISTRATION), 201)
    ok(client.post("/v1/studies/digits-tpe/trials:enqueue", json=examples.ENQUEUE))
    ok(client.post("/v1/studies/my-program/trials:suggest", json=external_examples.SUGGEST))
    ok(client.post("/v1/studies/my-program/trials/0:report", json=external_examples.REPORT))
    ok(client.post("/v1/studies/my-program/trials/1:report", json=external_examples.REPORT_EPOCHS))
    ok(client.post("/v1/studies/my-program/trials:report", json=external_examples.REPORTS))
    ok(client.post("/v1/studies/my-program/trials/0:complete", json=external_examples.COMPLETE))
    ok(client.post("/v1/studies/my-program/trials/1:complete", json=external_examples.FAILED))
    ok(client.post("/v1/comparisons", json=comparison_examples.SPEC), 201)
    path = f"/v1/comparisons/{comparison_examples.SPEC['name']}/arms"
    ok(client.post(path, json=comparison_examples.ARMS), 201)
    ok(client.post("/v1/tokens", json=examples.TOKEN_REQUEST), 201)


def test_examples_of_parameters_can_be_sent(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            for example in parameter["schema"].get("examples", ()):
                assert str(example).isascii(), (name, parameter["name"])


def test_the_page_for_people(client: httpx.Client) -> None:
    assert "swagger" in client.get("/docs").text


def test_every_operation_is_in_the_docs(document: dict[str, Any]) -> None:
    docs = (ROOT / "docs" / "api.md").read_text()
    rows = {f"{row[0]} {row[1]}": row[2] for row in re.findall(ROW, docs, re.MULTILINE)}
    assert rows == {
        name: operation["security"][0]["token"][0] if "security" in operation else ""
        for name, operation in operations(document)
    }
