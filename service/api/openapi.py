"""The OpenAPI document: what FastAPI cannot derive from the routes' signatures.

Bodies are read by `bodies`, so their models are named here; every route says which
problems it answers with.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ridgeline.search.comparison import ComparisonSpec
from ridgeline.search.spec import StudySpec
from ridgeline.service.api import examples
from ridgeline.service.api.bodies import Nothing
from ridgeline.service.api.problems import MEDIA_TYPE
from ridgeline.service.comparison_resources import ArmsRequest
from ridgeline.service.external_protocol import (
    CompleteRequest,
    ReportRequest,
    SuggestRequest,
    TrialReports,
)
from ridgeline.service.protocol import SyncRequest, WorkerRegistration
from ridgeline.service.resources import (
    CloneRequest,
    EnqueueRequest,
    ExtendRequest,
    ExtendStudyRequest,
    Problem,
    RetryRequest,
    TokenRequest,
)

DESCRIPTION = """\
Ridgeline searches hyperparameters: post a *study*, workers train its *trials*.

* **Names.** A study is known by the name its author gave it, a trial by its number, from 0.
* **Tokens.** Send `Authorization: Bearer rl_…`. While no token was ever created none is needed, and
  the service listens on loopback only.
* **Bodies** are JSON in UTF-8: no NaN, no key twice, integers up to 2⁵³.
* **Errors** are `application/problem+json` (RFC 9457); `errors` names each wrong field.
* **Repeating a POST** is safe with an `Idempotency-Key`: same key and body, same answer.
* **Lists** come in pages: pass `next_page_token` on as `page_token` until it is null.
"""

TAGS = [
    {"name": "studies", "description": "Post a search, follow it, end it."},
    {"name": "trials", "description": "The configurations of a study and what came of them."},
    {
        "name": "comparisons",
        "description": "Ways to train, each tuned by a study, their winners by fresh seeds.",
    },
    {"name": "catalog", "description": "What can be trained: tasks and data sets."},
    {"name": "workers", "description": "Processes with devices, which pull runs and train them."},
    {"name": "tokens", "description": "Who may do what."},
    {"name": "health", "description": "For probes, which need no token, and for Prometheus."},
]

_REQUESTS: tuple[type[BaseModel], ...] = (
    StudySpec,
    CloneRequest,
    ComparisonSpec,
    ArmsRequest,
    ExtendRequest,
    ExtendStudyRequest,
    RetryRequest,
    EnqueueRequest,
    SuggestRequest,
    ReportRequest,
    CompleteRequest,
    TrialReports,
    WorkerRegistration,
    SyncRequest,
    TokenRequest,
    Nothing,
    Problem,
)
_REF = "#/components/schemas/{model}"

_MEANINGS = {
    400: "The body is not JSON.",
    401: "A token is needed, or this one is not valid.",
    403: "The token lacks the scope.",
    404: "There is no such thing.",
    408: "The body did not arrive in time.",
    409: "Its state does not allow this.",
    411: "`Content-Length` is missing.",
    412: "It has changed since `If-Match` knew it.",
    413: "The body is too large.",
    415: "The body is not `application/json`, or compressed.",
    422: "A field or parameter cannot be used; `errors` names it.",
    428: "`If-Match` is missing.",
    429: "A limit is reached.",
    503: "The database cannot answer now; try again.",
}
_OF_BODIES = (400, 408, 413, 415, 422)


def problems(*statuses: int, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route of /v1 that answers with these problems besides the common ones."""
    of_body = _OF_BODIES if body else ()
    return {status: problem(status) for status in sorted({401, 403, 503, *statuses, *of_body})}


def problem(status: int) -> dict[str, Any]:
    """The documentation of one problem."""
    example = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": _MEANINGS[status].rstrip("."),
        "errors": [],
    }
    if status == 422:
        reason = "low (0.1) must be below high (0.01)"
        example |= {
            "type": "urn:ridgeline:invalid-input",
            "title": "Invalid input",
            "detail": f"space.learning_rate: {reason}",
            "errors": [{"field": "space.learning_rate", "message": reason}],
        }
    schema = {"$ref": _REF.format(model="Problem")}
    return {
        "description": _MEANINGS[status],
        "content": {MEDIA_TYPE: {"schema": schema, "example": example}},
    }


def takes(model: type[BaseModel], **examples: Any) -> dict[str, Any]:
    """`openapi_extra` of a route that reads its body as `model`, with examples by title."""
    required = any(field.is_required() for field in model.model_fields.values())
    media: dict[str, Any] = {"schema": {"$ref": _REF.format(model=model.__name__)}}
    if examples:
        media["examples"] = {
            name: {"summary": name.replace("_", " "), "value": value}
            for name, value in examples.items()
        }
    return {"requestBody": {"required": required, "content": {"application/json": media}}}


def install(app: FastAPI) -> None:
    """Let the document of `app` hold the schemas that its routes only refer to."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            _, definitions = models_json_schema(
                [(model, "validation") for model in _REQUESTS], ref_template=_REF
            )
            document = generate()
            document["components"]["schemas"].update(definitions["$defs"])
            _close_objects(document["components"]["schemas"])
            _parameters_are_not_null(document)
            _show_examples(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # how FastAPI says to extend it


def _close_objects(schema: Any) -> None:
    """Where pydantic says which names an object may have, say too that it has no others."""
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            _close_objects(part)
    elif isinstance(schema, list):
        for part in schema:
            _close_objects(part)


def _parameters_are_not_null(document: dict[str, Any]) -> None:
    """A parameter that may be left out is None in Python, but nobody can send null in a URL."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                schema = parameter["schema"]
                for one in schema.pop("anyOf", ()):
                    if one != {"type": "null"}:
                        schema.update(one)


def _show_examples(document: dict[str, Any]) -> None:
    """Put an example into each operation's answer; FastAPI would drop the nulls in it."""
    for operations in document["paths"].values():
        for operation in operations.values():
            success = next(s for s in operation["responses"] if s.startswith("2"))
            for media in operation["responses"][success]["content"].values():
                media.setdefault("example", examples.ANSWERS[operation["operationId"]])
