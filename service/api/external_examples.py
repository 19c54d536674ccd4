"""Examples of what programs that train by themselves and the api say to each other."""

from __future__ import annotations

from ridgeline.service.external_protocol import (
    CompleteRequest,
    EpochReport,
    ReportOutcome,
    ReportOutcomes,
    ReportRequest,
    SuggestedTrial,
    SuggestRequest,
    SuggestResponse,
    TrialEnd,
    TrialReport,
    TrialReports,
)
from ridgeline.service.lifecycle import StudyState, TrialState
from ridgeline.service.resources import Problem

SUGGEST = SuggestRequest(count=2, lease_seconds=600).model_dump(mode="json")
SUGGEST_WAITING = SuggestRequest(client_id="node-3", wait_seconds=20, lease_seconds=60).model_dump(
    mode="json"
)
SUGGESTED = SuggestResponse(
    trials=(
        SuggestedTrial(
            number=0, attempt=1, config={"depth": 5}, seed=2_750_121_003, lease_seconds=600
        ),
    ),
    state=StudyState.RUNNING,
    reason="1 trials are in flight; max_parallel is 1",
).model_dump(mode="json")
REPORT = {"attempt": 1, "epoch": 1, "metrics": {"error": 0.21}}
_EPOCHS = (
    EpochReport(epoch=2, metrics={"error": 0.19}),
    EpochReport(epoch=3, metrics={"error": 0.18}),
)
REPORT_EPOCHS = ReportRequest(attempt=1, epochs=_EPOCHS).model_dump(
    mode="json", exclude_defaults=True
)
REPORTS = TrialReports(
    trials=(
        TrialReport(number=0, attempt=1, epochs=_EPOCHS, end=TrialEnd(value=0.17)),
        TrialReport(number=1, attempt=1, epochs=_EPOCHS[:1]),
    )
).model_dump(mode="json", exclude_defaults=True)
OUTCOMES = ReportOutcomes(
    trials=(
        ReportOutcome(
            number=0, state=TrialState.COMPLETE, value=0.17, should_prune=False, error=None
        ),
        ReportOutcome(
            number=1,
            state=None,
            value=None,
            should_prune=False,
            error=Problem(
                type="urn:ridgeline:stale-attempt",
                title="Stale attempt",
                status=409,
                detail="attempt 1 at trial 1 of my-program is not the current one, 2: the trial "
                "was handed out again, or its lease ran out",
            ),
        ),
    )
).model_dump(mode="json")
COMPLETE = CompleteRequest(attempt=1, value=0.17).model_dump(mode="json", exclude_defaults=True)
FAILED = {"attempt": 1, "state": "FAIL", "reason": "crashed", "error": "exit status 139"}
