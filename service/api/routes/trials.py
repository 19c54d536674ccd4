"""Trials: list, get, enqueue, and the calls of programs that train by themselves."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.requests import Request
from starlette.responses import Response

from ridgeline.service import enqueueing, explaining, pruning, reporting, trials
from ridgeline.service.api import examples, external_examples
from ridgeline.service.api.auth import Reader, Writer
from ridgeline.service.api.bodies import Bulk, body_of
from ridgeline.service.api.context import Api
from ridgeline.service.api.idempotency import REPLAYED, Idempotent, Remember
from ridgeline.service.api.openapi import problems, takes
from ridgeline.service.api.pages import PageSize, TrialCursor, TrialPage, next_page_token
from ridgeline.service.api.routes.params import StudyPath, TrialPath
from ridgeline.service.external_protocol import (
    CompleteRequest,
    ReportedTrial,
    ReportOutcomes,
    ReportRequest,
    SuggestRequest,
    SuggestResponse,
    TrialReports,
)
from ridgeline.service.lifecycle import OPEN_STUDY, TrialState
from ridgeline.service.resources import EnqueueRequest, Explanation, Trial, TrialWithHistory

router = APIRouter(prefix="/v1/studies/{study:name}", tags=["trials"])


@router.get(
    "/trials",
    summary="List trials",
    response_model=TrialPage,
    responses=problems(404, 422),
)
def list_trials(
    caller: Reader,
    api: Api,
    study: StudyPath,
    cursor: TrialCursor,
    page_size: PageSize = 100,
    state: Annotated[TrialState | None, Query(description="only those in this state")] = None,
) -> TrialPage:
    """Trials in the order of their numbers, each with its runs."""
    with api.store.reading() as tx:
        found, more = trials.list_page(tx, study, page_size=page_size, cursor=cursor, state=state)
    return TrialPage(trials=found, next_page_token=next_page_token(more))


@router.get(
    "/trials/{number:name}",
    summary="Get a trial",
    response_model=TrialWithHistory,
    responses=problems(404, 422),
)
def get_trial(caller: Reader, api: Api, study: StudyPath, number: TrialPath) -> TrialWithHistory:
    """One trial with its runs and the metrics of all their epochs."""
    with api.store.reading() as tx:
        return trials.get(tx, study, number)


@router.get(
    "/trials/{number:name}/explanation",
    summary="Explain a trial",
    response_model=Explanation,
    responses=problems(404, 422),
)
def explain_trial(caller: Reader, api: Api, study: StudyPath, number: TrialPath) -> Explanation:
    """Why a trial has its configuration: derived again from the trials that its sampler saw.

    `expected_value` and its interval are what a Gaussian process made of those trials before this
    one ran, so its value can be held against them.
    """
    return explaining.explain(api.store, study, number)


@router.post(
    "/trials:enqueue",
    summary="Enqueue trials",
    response_model=TrialPage,
    responses=problems(404, 409, body=True),
    openapi_extra=takes(EnqueueRequest, your_current_best=examples.ENQUEUE),
)
def enqueue_trials(
    caller: Writer,
    api: Api,
    study: StudyPath,
    body: Annotated[EnqueueRequest, Depends(body_of(EnqueueRequest))],
    once: Idempotent,
) -> Response:
    """Configurations to try next, before the sampler is asked for whole ones.

    What a configuration leaves out the sampler chooses, as Optuna does; `given` of the trial names
    the parameters that it had.  A grid chooses no values: there each names every parameter.
    """

    def enqueue(remember: Remember) -> TrialPage:
        found = enqueueing.enqueue(
            api.store, study, body.configs, remember=lambda tx, new: remember(tx, page(new))
        )
        return page(found)

    def page(new: list[Trial]) -> TrialPage:
        return TrialPage(trials=new, next_page_token=None)

    return once.perform_action(caller, enqueue)


@router.post(
    "/trials:suggest",
    summary="Get trials for your own program",
    response_model=SuggestResponse,
    responses=problems(404, 409, body=True),
    openapi_extra=takes(
        SuggestRequest,
        two_trials=external_examples.SUGGEST,
        one_that_is_waited_for=external_examples.SUGGEST_WAITING,
    ),
)
async def suggest_trials(
    request: Request,
    caller: Writer,
    api: Api,
    study: StudyPath,
    body: Annotated[SuggestRequest, Depends(body_of(SuggestRequest))],
    once: Idempotent,
) -> Response:
    """Hand trials of a study whose task is `external` to the program that calls.

    Report on each trial within its lease, or it is given to another program.  `reason` says why
    there are fewer trials than asked for.  With `wait_seconds`, an answer without trials comes only
    after that time, or once the study has ended.
    """
    may_wait = True

    def suggest(remember: Remember) -> SuggestResponse:
        nonlocal may_wait
        found = trials.suggest(api.store, study, body, remember=remember)
        may_wait = not found.trials and found.state in OPEN_STUDY
        return found

    answer = await api.arrivals.answer(
        request,
        lambda: once.perform_action(caller, suggest),
        audience=study,
        is_final=lambda answer: not may_wait or REPLAYED in answer.headers,
        seconds=body.wait_seconds,
        look_again_seconds=api.settings.sync_interval_seconds,
    )
    return Response() if answer is None else answer


@router.post(
    "/trials:report",
    summary="Report on several trials",
    response_model=ReportOutcomes,
    dependencies=[Bulk],
    responses=problems(404, 409, body=True),
    openapi_extra=takes(TrialReports, one_ends_one_goes_on=external_examples.REPORTS),
)
def report_trials(
    caller: Writer,
    api: Api,
    study: StudyPath,
    body: Annotated[TrialReports, Depends(body_of(TrialReports))],
    once: Idempotent,
) -> Response:
    """Finished epochs of external trials, and the ends of those that have ended.

    Each trial is answered for by itself: where one cannot be taken, its `error` is the problem that
    a call for it alone would be answered with, and the others are taken.  Every report renews the
    trial's lease, one without epochs too.
    """
    rules = pruning.rules_named(api.store, study)
    max_charges = api.settings.max_charges
    return once.perform_action(
        caller,
        lambda remember: reporting.report_all(
            api.store, study, body, rules=rules, max_charges=max_charges, remember=remember
        ),
    )


@router.post(
    "/trials/{number:name}:report",
    summary="Report epochs",
    response_model=ReportedTrial,
    dependencies=[Bulk],
    responses=problems(404, 409, body=True),
    openapi_extra=takes(
        ReportRequest,
        first_epoch=external_examples.REPORT,
        several_epochs=external_examples.REPORT_EPOCHS,
    ),
)
def report_trial(
    caller: Writer,
    api: Api,
    study: StudyPath,
    number: TrialPath,
    body: Annotated[ReportRequest, Depends(body_of(ReportRequest))],
    once: Idempotent,
) -> Response:
    """Metrics of finished epochs of an external trial; renews its lease.

    `should_prune` in the answer says that the study's pruner gives the trial up, at the epoch
    reported or at one of several: end it as PRUNED.

    409 with the type `urn:ridgeline:stale-attempt`: the trial has ended, or is somebody else's by
    now; drop it.
    """
    rules = pruning.rules_named(api.store, study)
    return once.perform(
        caller,
        lambda tx: reporting.report(tx, study, number, body, rules=rules),
        before=lambda: reporting.take_early(api.store, study, number, body, max_charges=1),
    )


@router.post(
    "/trials/{number:name}:complete",
    summary="End a trial",
    response_model=Trial,
    dependencies=[Bulk],
    responses=problems(404, 409, body=True),
    openapi_extra=takes(
        CompleteRequest, success=external_examples.COMPLETE, failure=external_examples.FAILED
    ),
)
def complete_trial(
    caller: Writer,
    api: Api,
    study: StudyPath,
    number: TrialPath,
    body: Annotated[CompleteRequest, Depends(body_of(CompleteRequest))],
    once: Idempotent,
) -> Response:
    """The result of an external trial, or how it failed; with the epochs not reported before.

    Without `value` its last reported value of the objective counts.
    """
    max_charges = api.settings.max_charges
    return once.perform(
        caller,
        lambda tx: reporting.complete(tx, study, number, body, max_charges=max_charges),
        before=lambda: reporting.take_early(
            api.store, study, number, body, max_charges=max_charges
        ),
    )
