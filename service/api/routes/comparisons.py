"""Comparisons: post, list, get, and the verbs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from starlette.responses import Response

from ridgeline.search.comparison import ComparisonSpec, parse_comparison, studies_of
from ridgeline.search.tasks.data_root import Folders
from ridgeline.service import comparisons
from ridgeline.service.api import comparison_examples, etags, examples
from ridgeline.service.api.auth import Reader, Writer
from ridgeline.service.api.bodies import JsonBody, Nothing, body_of
from ridgeline.service.api.context import PATIENCE_SECONDS, Api
from ridgeline.service.api.etags import NOT_MODIFIED, IfMatch, IfNoneMatch
from ridgeline.service.api.idempotency import Idempotent
from ridgeline.service.api.openapi import problems, takes
from ridgeline.service.api.pages import (
    ComparisonCursor,
    ComparisonPage,
    PageSize,
    next_page_token,
)
from ridgeline.service.api.routes.params import ComparisonPath
from ridgeline.service.comparison_resources import ArmsRequest, Comparison
from ridgeline.service.comparisons import Terms
from ridgeline.service.errors import Conflict
from ridgeline.service.resources import ExtendRequest
from ridgeline.service.store.session import Transaction

router = APIRouter(prefix="/v1", tags=["comparisons"])


@router.post(
    "/comparisons",
    summary="Post a comparison",
    response_model=Comparison,
    status_code=201,
    responses=problems(409, 429, body=True),
    openapi_extra=takes(ComparisonSpec, three_ways_to_train=comparison_examples.SPEC),
)
def create_comparison(caller: Writer, api: Api, data: JsonBody, once: Idempotent) -> Response:
    """Queue a study for each arm; once it has ended, its winner is trained again.

    The spec is checked as a whole, as that of each study would be; problems name fields of the
    `base` or of `arms`.
    """
    spec = parse_comparison(data)
    datasets = {study.dataset for study in studies_of(spec).values()} - {None}
    local = api.local_datasets.look(only=tuple(name for name in datasets if name is not None))
    return once.perform(
        caller,
        lambda tx: comparisons.create(tx, spec, owner=caller.token_id, terms=_terms(api, local)),
        status=201,
        check_replay=_check_is_there,
    )


def _terms(api: Api, local: Folders) -> Terms:
    return Terms(local, api.settings.max_open_studies)


def _check_is_there(tx: Transaction, answer: Mapping[str, Any]) -> None:
    """A key makes one comparison, and does not pretend that a deleted one is there."""
    row = tx.comparisons.find(answer["name"])
    if row is None or row.created_at != answer["created_at"]:
        raise Conflict(
            f"the comparison {answer['name']} that this Idempotency-Key has made was deleted "
            "since; use a new key for another one"
        )


@router.get(
    "/comparisons",
    summary="List comparisons",
    response_model=ComparisonPage,
    responses=problems(422),
)
def list_comparisons(
    caller: Reader, api: Api, cursor: ComparisonCursor, page_size: PageSize = 100
) -> ComparisonPage:
    """Comparisons, newest first, without their studies and results."""
    with api.store.reading() as tx:
        found, more = comparisons.list_page(tx, page_size=page_size, cursor=cursor)
        total_size = tx.comparisons.num_all()
    return ComparisonPage(
        comparisons=found, next_page_token=next_page_token(more), total_size=total_size
    )


@router.get(
    "/comparisons/{comparison:name}",
    summary="Get a comparison",
    response_model=Comparison,
    responses={**NOT_MODIFIED, **problems(404, 422)},
)
def get_comparison(
    caller: Reader, api: Api, comparison: ComparisonPath, if_none_match: IfNoneMatch = None
) -> Response:
    """The comparison's arms with their studies, and what is known of those that are done.

    Means have 95 % intervals, and so has the difference of each pair of arms, seed by seed.
    """
    with api.store.reading() as tx:
        found = comparisons.get(tx, comparison)
    return etags.tagged(found, if_none_match)


@router.delete(
    "/comparisons/{comparison:name}",
    summary="Delete a comparison",
    response_model=Comparison,
    responses=problems(404, 409, 412, 428, body=True),
    openapi_extra=etags.takes_if_match("comparison"),
)
def delete_comparison(
    caller: Writer, comparison: ComparisonPath, once: Idempotent, if_match: IfMatch = None
) -> Response:
    """Delete a comparison that has ended, for good, with all its studies.

    Its name is free then.  The answer shows it as it was.
    """
    meant = etags.required(if_match, "comparison")

    def delete(tx: Transaction) -> Comparison:
        found = comparisons.delete(tx, comparison)
        etags.check(found, comparison, meant)
        return found

    return once.perform(caller, delete)


@router.post(
    "/comparisons/{comparison:name}:extend",
    summary="Extend a comparison",
    response_model=Comparison,
    responses=problems(404, 409, 429, body=True),
    openapi_extra=takes(
        ExtendRequest, ten_more_trials=examples.EXTEND, for_ten_more_minutes=examples.EXTEND_TIME
    ),
)
def extend_comparison(
    caller: Writer,
    api: Api,
    comparison: ComparisonPath,
    body: Annotated[ExtendRequest, Depends(body_of(ExtendRequest))],
    once: Idempotent,
) -> Response:
    """Add to the budget of every arm alike: of trials, of time, or of both.

    An arm that then has another winner trains that one again.  Repeating the call extends the
    comparison again, unless both calls have the same `Idempotency-Key`.
    """
    max_open = api.settings.max_open_studies
    return once.perform(
        caller, lambda tx: comparisons.extend(tx, comparison, body, max_open=max_open)
    )


@router.post(
    "/comparisons/{comparison:name}/arms",
    summary="Add arms",
    response_model=Comparison,
    status_code=201,
    responses=problems(404, 409, 429, body=True),
    openapi_extra=takes(ArmsRequest, dropout=comparison_examples.ARMS),
)
def add_arms(
    caller: Writer,
    api: Api,
    comparison: ComparisonPath,
    body: Annotated[ArmsRequest, Depends(body_of(ArmsRequest))],
    once: Idempotent,
) -> Response:
    """Tune further arms, with the budget and the data that the others have by now.

    A comparison that has ended goes on with them.
    """
    local = api.local_datasets.look(patience_seconds=PATIENCE_SECONDS)
    return once.perform(
        caller,
        lambda tx: comparisons.add_arms(tx, comparison, body.arms, terms=_terms(api, local)),
        status=201,
    )


def _add_verb(verb: comparisons.Verb, summary: str, description: str) -> None:
    def endpoint(
        caller: Writer,
        comparison: ComparisonPath,
        once: Idempotent,
        body: Annotated[Nothing, Depends(body_of(Nothing))],
    ) -> Response:
        return once.perform(caller, lambda tx: comparisons.apply_verb(tx, comparison, verb))

    router.add_api_route(
        f"/comparisons/{{comparison:name}}:{verb}",
        endpoint,
        methods=["POST"],
        name=f"{verb}_comparison",
        summary=summary,
        description=f"{description}  Repeating it changes nothing.",
        response_model=Comparison,
        responses=problems(404, 409, body=True),
        openapi_extra=takes(Nothing),
    )


_add_verb(
    "pause",
    "Pause a comparison",
    "Start no more runs of any arm, and train no winner again; runs that train go on to their end.",
)
_add_verb("resume", "Resume a comparison", "Go on with a paused comparison.")
_add_verb(
    "cancel",
    "Cancel a comparison",
    "End it now: its open studies are cancelled.  What is known of arms that are done stays.",
)
