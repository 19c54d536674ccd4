"""Reports that people pass around: one HTML file, or Markdown."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query
from starlette.responses import HTMLResponse, Response

from ridgeline.service.api.auth import Reader
from ridgeline.service.api.context import Api
from ridgeline.service.api.openapi import problems
from ridgeline.service.api.routes.params import ComparisonPath, StudyPath
from ridgeline.service.reports.comparison import comparison_report
from ridgeline.service.reports.comparison_findings import gather_comparison
from ridgeline.service.reports.document import Report
from ridgeline.service.reports.findings import gather
from ridgeline.service.reports.html import POLICY, as_html
from ridgeline.service.reports.markdown import as_markdown
from ridgeline.service.reports.study import study_report

router = APIRouter(prefix="/v1")

_MARKDOWN = "text/markdown"
_HEADERS = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "Vary": "Accept",
}
_CONTENT = {_MARKDOWN: {"schema": {"type": "string"}, "example": "# digits\n\n…"}}

Format = Annotated[
    Literal["html", "md"] | None,
    Query(description="left out: Markdown where `Accept` has `text/markdown` and no HTML"),
]
Accept = Annotated[str, Header(include_in_schema=False)]


@router.get(
    "/studies/{study:name}/report",
    summary="Get the report of a study",
    tags=["studies"],
    response_class=HTMLResponse,
    responses={200: {"content": _CONTENT}, **problems(404, 422)},
)
def get_study_report(
    caller: Reader, api: Api, study: StudyPath, format: Format = None, accept: Accept = ""
) -> Response:
    """What was asked and what came of it, for people: figures, tables, and the spec to copy.

    One HTML file that needs nothing beside itself, or the same in words and tables as Markdown.
    """
    with api.store.reading() as tx:
        found = gather(tx, study)
    return _answer(study_report(found), format, accept)


@router.get(
    "/comparisons/{comparison:name}/report",
    summary="Get the report of a comparison",
    tags=["comparisons"],
    response_class=HTMLResponse,
    responses={200: {"content": _CONTENT}, **problems(404, 422)},
)
def get_comparison_report(
    caller: Reader, api: Api, comparison: ComparisonPath, format: Format = None, accept: Accept = ""
) -> Response:
    """Which arm is better by what the data support, for people: figures, tables and sentences.

    As the report of a study it is one HTML file, or Markdown.
    """
    with api.store.reading() as tx:
        found = gather_comparison(tx, comparison)
    return _answer(comparison_report(found), format, accept)


def _answer(report: Report, format: Literal["html", "md"] | None, accept: str) -> Response:
    wants_markdown = _MARKDOWN in accept and "text/html" not in accept
    if format == "md" or (format is None and wants_markdown):
        return Response(as_markdown(report), headers=_HEADERS, media_type=_MARKDOWN)
    return HTMLResponse(as_html(report), headers=_HEADERS)
