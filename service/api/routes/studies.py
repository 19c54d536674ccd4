"""Studies: post, list, get, follow, export, and the verbs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from starlette.responses import Response

from ridgeline.search.fields import MAX_INT
from ridgeline.search.spec import StudySpec, parse_spec
from ridgeline.search.tasks.data_root import Folders
from ridgeline.service import extending, studies
from ridgeline.service.api import etags, events, examples
from ridgeline.service.api.auth import Reader, Writer
from ridgeline.service.api.bodies import JsonBody, Nothing, body_of
from ridgeline.service.api.context import PATIENCE_SECONDS, Api
from ridgeline.service.api.etags import NOT_MODIFIED, IfMatch, IfNoneMatch
from ridgeline.service.api.idempotency import Idempotent
from ridgeline.service.api.openapi import problems, takes
from ridgeline.service.api.pages import PageSize, StudyCursor, StudyPage, next_page_token
from ridgeline.service.api.routes.params import StudyPath
from ridgeline.service.errors import Conflict
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.resources import (
    CloneRequest,
    ExtendStudyRequest,
    RetryRequest,
    Study,
    Winner,
)
from ridgeline.service.store.session import Transaction

router = APIRouter(prefix="/v1", tags=["studies"])


class CsvResponse(Response):
    media_type = "text/csv"


_SPEC = takes(
    StudySpec,
    TPE=examples.TPE_SPEC,
    grid_with_three_seeds_a_trial=examples.GRID_SPEC,
    trained_by_your_own_program=examples.EXTERNAL_SPEC,
)


@router.post(
    "/studies",
    summary="Post a study",
    response_model=Study,
    status_code=201,
    responses=problems(409, 429, body=True),
    openapi_extra=_SPEC,
)
def create_study(caller: Writer, api: Api, data: JsonBody, once: Idempotent) -> Response:
    """Queue a search; workers that have its task and data set begin at once.

    The spec is checked as a whole: parameters must be the task's, a grid needs points on every
    float range, the data set must be known (`GET /v1/datasets`).
    """
    spec = parse_spec(data)
    wanted = () if spec.dataset is None else (spec.dataset,)
    return _create(caller, api, once, lambda tx: spec, api.local_datasets.look(only=wanted))


@router.post(
    "/studies/{study:name}:clone",
    summary="Clone a study",
    response_model=Study,
    status_code=201,
    responses=problems(404, 409, 429, body=True),
    openapi_extra=takes(CloneRequest, with_more_trials=examples.CLONE),
)
def clone_study(
    caller: Writer,
    api: Api,
    study: StudyPath,
    body: Annotated[CloneRequest, Depends(body_of(CloneRequest))],
    once: Idempotent,
) -> Response:
    """Queue a study with the spec of this one, but for what the body says; without its trials.

    The body is a spec of which only the `name` is needed.  Parts such as `budget` are changed field
    by field, a parameter of `space` as a whole; null takes a field out.
    """
    changes = body.model_dump(mode="json")
    local = api.local_datasets.look(patience_seconds=PATIENCE_SECONDS)
    return _create(
        caller, api, once, lambda tx: studies.changed_spec(tx, study, changes), local, like=study
    )


def _create(
    caller: Writer,
    api: Api,
    once: Idempotent,
    spec_of: Callable[[Transaction], StudySpec],
    local: Folders,
    *,
    like: str | None = None,
) -> Response:
    return once.perform(
        caller,
        lambda tx: studies.create(
            tx,
            spec_of(tx),
            owner=caller.token_id,
            local_datasets=local.cards,
            left_out=local.left_out,
            max_open=api.settings.max_open_studies,
            like=like,
        ),
        status=201,
        check_replay=_check_is_there,
    )


def _check_is_there(tx: Transaction, answer: Mapping[str, Any]) -> None:
    """A key makes one study, and does not pretend that a deleted one is there."""
    row = tx.studies.find(answer["name"])
    if row is None or row.created_at != answer["created_at"]:
        raise Conflict(
            f"the study {answer['name']} that this Idempotency-Key has made was deleted since; "
            "use a new key for another one"
        )


@router.post(
    "/studies/{study:name}:extend",
    summary="Extend a study",
    response_model=Study,
    responses=problems(404, 409, 429, body=True),
    openapi_extra=takes(
        ExtendStudyRequest,
        ten_more_trials=examples.EXTEND,
        for_ten_more_minutes=examples.EXTEND_TIME,
        ten_more_trials_of_a_larger_space=examples.EXTEND_SPACE,
    ),
)
def extend_study(
    caller: Writer,
    api: Api,
    study: StudyPath,
    body: Annotated[ExtendStudyRequest, Depends(body_of(ExtendStudyRequest))],
    once: Idempotent,
) -> Response:
    """Add to the budget of trials, of time, or of both, and to the space.

    Of `space`, a range may become wider and a list of values longer; what is chosen from then on is
    chosen from all of it, and the trials there are count as before.  A study that has ended is
    queued again, one that is stopping goes on.  The time of a study that has ended runs from now
    on.  Repeating it extends the study again, unless both calls have the same `Idempotency-Key`.
    """
    max_open = api.settings.max_open_studies
    return once.perform(
        caller, lambda tx: extending.extend_alone(tx, study, body, max_open=max_open)
    )


@router.post(
    "/studies/{study:name}:retry",
    summary="Try failed trials again",
    response_model=Study,
    responses=problems(404, 409, 429, body=True),
    openapi_extra=takes(RetryRequest, after_a_crash=examples.RETRY),
)
def retry_study(
    caller: Writer,
    api: Api,
    study: StudyPath,
    body: Annotated[RetryRequest, Depends(body_of(RetryRequest))],
    once: Idempotent,
) -> Response:
    """Each failure becomes a new trial with the same configuration, on top of the budget.

    A study that has ended is queued again.  A trial is tried again once: `retry_of` of the new one
    names it.  Repeating the call changes nothing.
    """
    max_open = api.settings.max_open_studies
    return once.perform(caller, lambda tx: extending.retry(tx, study, body, max_open=max_open))


@router.get(
    "/studies",
    summary="List studies",
    response_model=StudyPage,
    responses=problems(422),
)
def list_studies(
    caller: Reader,
    api: Api,
    cursor: StudyCursor,
    page_size: PageSize = 100,
    state: Annotated[
        tuple[StudyState, ...],
        Query(max_length=len(StudyState), description="only those in this state; may be repeated"),
    ] = (),
    archived: Annotated[bool, Query(description="those that are archived too")] = False,
) -> StudyPage:
    """Studies, newest first."""
    with api.store.reading() as tx:
        found, more = studies.list_page(
            tx, page_size=page_size, cursor=cursor, states=state, archived=archived
        )
        total_size = tx.studies.num_in(state, archived=archived)
    return StudyPage(studies=found, next_page_token=next_page_token(more), total_size=total_size)


@router.get(
    "/studies/{study:name}",
    summary="Get a study",
    response_model=Study,
    responses={**NOT_MODIFIED, **problems(404, 422)},
)
def get_study(
    caller: Reader,
    api: Api,
    study: StudyPath,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The study's spec, state, counts and best trial so far; `reason` says why it waits."""
    with api.store.reading() as tx:
        found = studies.get(tx, study)
    return etags.tagged(found, if_none_match)


@router.delete(
    "/studies/{study:name}",
    summary="Delete a study",
    response_model=Study,
    responses=problems(404, 409, 412, 428, body=True),
    openapi_extra=etags.takes_if_match("study"),
)
def delete_study(
    caller: Writer,
    study: StudyPath,
    once: Idempotent,
    if_match: IfMatch = None,
) -> Response:
    """Delete a study that has ended, for good: its trials, and the copy in Optuna's tables.

    Its name is free then.  The answer shows it as it was.
    """
    meant = etags.required(if_match, "study")

    def delete(tx: Transaction) -> Study:
        found = studies.delete(tx, study)
        etags.check(found, study, meant)
        return found

    return once.perform(caller, delete)


@router.get(
    "/studies/{study:name}/best",
    summary="Get the best trial",
    response_model=Winner,
    responses=problems(404, 422),
)
def get_best_trial(caller: Reader, api: Api, study: StudyPath) -> Winner:
    """The complete trial with the best value; of equal ones the one with the smaller number.

    The value is the mean over all its seeds in the search: `standing` has it, and what fresh seeds
    have come to.
    """
    with api.store.reading() as tx:
        return studies.best(tx, study)


@router.get(
    "/studies/{study:name}/export",
    summary="Export the trials as CSV",
    response_class=CsvResponse,
    responses=problems(404, 422),
)
def export_study(caller: Reader, api: Api, study: StudyPath) -> Response:
    """One line a run, the columns of its trial repeated."""
    with api.store.reading() as tx:
        text = studies.export_csv(tx, study)
    headers = {"Content-Disposition": f'attachment; filename="{study}.csv"'}
    return CsvResponse(text, headers=headers)


@router.get(
    "/studies/{study:name}/events",
    summary="Follow a study live",
    status_code=200,
    response_class=events.EventStream,
    responses={200: events.DOCUMENTATION, **problems(404, 422)},
)
def stream_events(
    caller: Reader,
    api: Api,
    study: StudyPath,
    last_event_id: Annotated[
        int | None, Header(ge=0, le=MAX_INT, description="id of the last event you have")
    ] = None,
    after: Annotated[
        int, Query(ge=0, le=MAX_INT, description="the same, where headers cannot be set")
    ] = 0,
) -> Response:
    """Server-sent events: the newest state of whatever changed, in the order of the changes.

    `id` is the study's revision at the change, `event` one of study, trial, run, report; after the
    last event of a study that has ended comes `end`.  Changes of one thing between two looks are
    told as one.
    """
    start = after if last_event_id is None else last_event_id
    events.read(api, caller, study, start)  # a study that does not exist is a 404, not a stream
    return events.EventStream(events.stream(api, caller, study, start))


def _add_verb(verb: studies.Verb, summary: str, description: str) -> None:
    def endpoint(
        caller: Writer,
        api: Api,
        study: StudyPath,
        once: Idempotent,
        body: Annotated[Nothing, Depends(body_of(Nothing))],
    ) -> Response:
        return once.perform_action(
            caller,
            lambda remember: studies.perform_verb(api.store, study, verb, remember=remember),
        )

    router.add_api_route(
        f"/studies/{{study:name}}:{verb}",
        endpoint,
        methods=["POST"],
        name=f"{verb}_study",
        summary=summary,
        description=f"{description}  Repeating it changes nothing.",
        response_model=Study,
        responses=problems(404, 409, body=True),
        openapi_extra=takes(Nothing),
    )


_add_verb("pause", "Pause a study", "Start no more runs; those that train go on to their end.")
_add_verb("resume", "Resume a study", "Go on with a paused study.")
_add_verb("stop", "Stop a study", "Create no more trials; the running ones finish.")
_add_verb("cancel", "Cancel a study", "End it now: its running trials fail as cancelled.")
_add_verb(
    "archive",
    "Archive a study",
    "Leave a study that has ended out of lists.  Its name stays taken, and everything else as it "
    "is; extending it or retrying its failures brings it back.",
)
_add_verb("unarchive", "Unarchive a study", "Show an archived study in lists again.")
