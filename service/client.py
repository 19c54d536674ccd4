"""The typed client: one method per call of the API, for people's programs, the CLI and workers.

Errors are `ApiError` and `Unreachable`, both `ClientError`; see `ridgeline.service.connection`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from ridgeline.search.comparison import ComparisonName, ComparisonSpec, Partial
from ridgeline.search.fields import Whole
from ridgeline.search.space import Config
from ridgeline.search.spec import StudyName, StudySpec
from ridgeline.service.bodies import items_of, message, plain, refused
from ridgeline.service.comparison_resources import ArmsRequest, Comparison, ComparisonSummary
from ridgeline.service.connection import (
    RETRY_DELAYS_SECONDS,
    ApiError,
    ClientError,
    Connection,
    Unreachable,
    fields,
    listed,
    parsed,
)
from ridgeline.service.external import ExternalStudy
from ridgeline.service.external_protocol import (
    CompleteRequest,
    ReportedTrial,
    ReportOutcome,
    ReportRequest,
    SuggestRequest,
    SuggestResponse,
    TrialNumber,
    TrialReport,
    TrialReports,
)
from ridgeline.service.file_headers import EPOCH
from ridgeline.service.lifecycle import FailReason, StudyState, TrialState
from ridgeline.service.protocol import (
    CheckpointInfo,
    SyncRequest,
    SyncResponse,
    WorkerRegistered,
    WorkerRegistration,
)
from ridgeline.service.resources import (
    Dataset,
    EnqueueRequest,
    Event,
    Explanation,
    ExtendRequest,
    ExtendStudyRequest,
    RetryRequest,
    Study,
    TaskInfo,
    Trial,
    TrialWithHistory,
    Winner,
    Worker,
)

__all__ = ["ApiError", "Client", "ClientError", "Unreachable"]

_PAGE_SIZE = 500

ReportFormat = Literal["html", "md"]

_STUDY_NAME = TypeAdapter[str](StudyName)
_COMPARISON_NAME = TypeAdapter[str](ComparisonName)
_TRIAL_NUMBER = TypeAdapter[int](TrialNumber)

_Model = TypeVar("_Model", bound=BaseModel)


class _EventId(BaseModel):
    after: Annotated[Whole, Field(ge=0)]


class Client:
    """A connection to one Ridgeline service; close it, or use it in a `with` block.

    Args:
        url: where the api listens, such as http://127.0.0.1:8000.
        token: `rl_<id>_<secret>`; not needed by a service that has no tokens.
        retry_delays_seconds: waits before each repetition after a failed connection.
        transport: replaces the network, for tests.

    Numbers and arrays of numpy, torch and the like may stand for numbers and lists.  Every method
    raises `ApiError` or `Unreachable`; an `ApiError` also where a number is NaN or infinite.

    Raises:
        ValueError: the URL or the token cannot be one, or an environment variable that names a
            proxy or certificates cannot be used.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        retry_delays_seconds: Sequence[float] = RETRY_DELAYS_SECONDS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._connection = Connection(
            url, token, retry_delays_seconds=retry_delays_seconds, transport=transport
        )
        self.url = self._connection.url
        self._external: list[ExternalStudy] = []

    def close(self) -> None:
        """Close the connection, once what programs have reported is sent."""
        with ExitStack() as stack:
            stack.callback(self._connection.close)
            for study in self._external:
                stack.callback(study.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- studies ---------------------------------------------------------------------------------

    def create_study(
        self, spec: StudySpec | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Study:
        """Post a study; with the same key, posting it again gives the same study."""
        if isinstance(spec, StudySpec):
            spec = spec.model_dump(mode="json", exclude_unset=True)  # as its author wrote it
        body = plain(spec)
        return parsed(Study, self._post("/v1/studies", body, idempotency_key))

    def study(self, name: str) -> Study:
        return parsed(Study, self._connection.get(_study_path(name)))

    def studies(
        self, *, state: StudyState | None = None, archived: bool = False
    ) -> Iterator[Study]:
        """All studies, newest first, page by page; `archived` ones where asked for."""
        filters = {} if archived is False else {"archived": archived}
        return self._pages("/v1/studies", "studies", Study, state=state, **filters)

    def pause(self, name: str) -> Study:
        return self._verb(name, "pause")

    def resume(self, name: str) -> Study:
        return self._verb(name, "resume")

    def stop(self, name: str) -> Study:
        """Create no new trials; the running ones finish."""
        return self._verb(name, "stop")

    def cancel(self, name: str) -> Study:
        return self._verb(name, "cancel")

    def archive(self, name: str) -> Study:
        """Have lists leave out a study that has ended; nothing else of it changes."""
        return self._verb(name, "archive")

    def unarchive(self, name: str) -> Study:
        return self._verb(name, "unarchive")

    def extend(
        self,
        name: str,
        *,
        trials: int | None = None,
        seconds: float | None = None,
        space: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Study:
        """Add to a study's budget; one that has ended is queued again.

        Args:
            space: parameters whose ranges or lists of values grow, of each the fields that change.
        """
        body = message(ExtendStudyRequest, trials=trials, seconds=seconds, space=space)
        return parsed(Study, self._post(f"{_study_path(name)}:extend", body))

    def retry(self, name: str, *, reasons: Iterable[FailReason] | None = None) -> Study:
        """Try the failures of a study again, those for other reasons than `diverged` by default."""
        given = {} if reasons is None else {"reasons": items_of(reasons)}
        body = message(RetryRequest, **given)
        return parsed(Study, self._post(f"{_study_path(name)}:retry", body))

    def clone(self, name: str, new_name: str, changes: Mapping[str, Any] | None = None) -> Study:
        """Post a study with the spec of another, but for the fields in `changes`."""
        given = {} if changes is None else changes
        if not isinstance(given, Mapping):
            raise refused(("changes", "must be an object"))
        if "name" in given and plain(given["name"]) != plain(new_name):
            raise refused(("name", "is given beside new_name; leave it out of the changes"))
        body = plain({**given, "name": new_name})
        return parsed(Study, self._post(f"{_study_path(name)}:clone", body))

    def delete(self, name: str) -> Study:
        """Delete a study that has ended, with all its trials, for good; returns it as it was."""
        answer = self._connection.delete(_study_path(name), idempotency_key=str(uuid.uuid4()))
        return parsed(Study, answer)

    def best(self, name: str) -> Winner:
        """The best complete trial, and what all its seeds have come to."""
        return parsed(Winner, self._connection.get(f"{_study_path(name)}/best"))

    def export(self, name: str) -> str:
        """The study's trials as CSV."""
        return self._connection.get(f"{_study_path(name)}/export").text

    def study_report(self, name: str, *, format: ReportFormat = "html") -> str:
        """The report of a study as one HTML file, or as Markdown."""
        return self._report_at(_study_path(name), format)

    def events(self, name: str, *, after: int = 0) -> Iterator[Event]:
        """What changes in a study from revision `after` on, live, until the study is closed.

        A stream that breaks is taken up again where it broke.
        """
        start = message(_EventId, after=after).after
        for event in self._connection.events(f"{_study_path(name)}/events", start):
            if event["type"] == "end":
                return
            yield Event.model_validate({**event, "data": json.loads(event["data"])})

    # -- comparisons -----------------------------------------------------------------------------

    def create_comparison(
        self, spec: ComparisonSpec | Mapping[str, Any], *, idempotency_key: str | None = None
    ) -> Comparison:
        """Post a comparison; with the same key, posting it again gives the same one."""
        if isinstance(spec, ComparisonSpec):
            spec = spec.model_dump(mode="json")
        return parsed(Comparison, self._post("/v1/comparisons", plain(spec), idempotency_key))

    def comparison(self, name: str) -> Comparison:
        """A comparison with its arms, their studies, and the result where there is one."""
        return parsed(Comparison, self._connection.get(_comparison_path(name)))

    def comparisons(self) -> Iterator[ComparisonSummary]:
        """All comparisons, newest first, page by page."""
        return self._pages("/v1/comparisons", "comparisons", ComparisonSummary)

    def comparison_report(self, name: str, *, format: ReportFormat = "html") -> str:
        """The report of a comparison as one HTML file, or as Markdown."""
        return self._report_at(_comparison_path(name), format)

    def pause_comparison(self, name: str) -> Comparison:
        return self._comparison_verb(name, "pause")

    def resume_comparison(self, name: str) -> Comparison:
        return self._comparison_verb(name, "resume")

    def cancel_comparison(self, name: str) -> Comparison:
        """End it now; what is known of arms that are done stays."""
        return self._comparison_verb(name, "cancel")

    def extend_comparison(
        self, name: str, *, trials: int | None = None, seconds: float | None = None
    ) -> Comparison:
        """Add to the budget of every arm; an arm that has another winner then trains that again."""
        return self._comparison_verb(
            name, "extend", message(ExtendRequest, trials=trials, seconds=seconds)
        )

    def add_arms(self, name: str, arms: Mapping[str, Partial] | Iterable[str]) -> Comparison:
        """Tune further arms, as the spec of a comparison has them, on the terms of the others."""
        body = message(ArmsRequest, arms=items_of(arms))
        return parsed(Comparison, self._post(f"{_comparison_path(name)}/arms", body))

    def delete_comparison(self, name: str) -> Comparison:
        """Delete a comparison that has ended, with all its studies; returns it as it was."""
        path = _comparison_path(name)
        answer = self._connection.delete(path, idempotency_key=str(uuid.uuid4()))
        return parsed(Comparison, answer)

    # -- trials ----------------------------------------------------------------------------------

    def external(
        self, study: str, *, lease_seconds: float = 60.0, client_id: str | None = None
    ) -> ExternalStudy:
        """A study that your own program trains; iterate over it for its trials.

        Args:
            lease_seconds: how long after the program's death its trials go to another; until then
                they are renewed in the background.
            client_id: a name that the program keeps when it is started again, to get the trials
                it had open then at once.  It asks for one trial after the other.
        """
        asked = message(SuggestRequest, lease_seconds=lease_seconds, client_id=client_id)
        found = ExternalStudy(
            self,
            study,
            has_pruner=self.study(study).spec.pruner is not None,
            lease_seconds=asked.lease_seconds,
            client_id=asked.client_id,
        )
        self._external.append(found)
        return found

    def trials(self, study: str, *, state: TrialState | None = None) -> Iterator[Trial]:
        """The trials of a study in the order of their numbers, page by page."""
        return self._pages(f"{_study_path(study)}/trials", "trials", Trial, state=state)

    def trial(self, study: str, number: int) -> TrialWithHistory:
        return parsed(TrialWithHistory, self._connection.get(_trial_path(study, number)))

    def explain(self, study: str, number: int) -> Explanation:
        """Why a trial has its configuration."""
        path = f"{_trial_path(study, number)}/explanation"
        return parsed(Explanation, self._connection.get(path))

    def enqueue(self, study: str, configs: Iterable[Config]) -> list[Trial]:
        """Trials to try next, before the sampler is asked for whole ones.

        What a configuration leaves out the sampler chooses, `{}` all; a grid's leave out nothing.
        """
        body = message(EnqueueRequest, configs=items_of(configs))
        answer = self._post(f"{_study_path(study)}/trials:enqueue", body)
        return listed(Trial, answer, "trials")

    def suggest(
        self,
        study: str,
        *,
        count: int = 1,
        lease_seconds: float = 3_600.0,
        client_id: str | None = None,
        wait_seconds: float = 0.0,
    ) -> SuggestResponse:
        """Trials for your own program to train; `external` is the easier way.

        Args:
            client_id: of the program: those of its trials that are open come first.
            wait_seconds: how long the answer may wait for a trial while there is none, 30 at most.
        """
        body = message(
            SuggestRequest,
            count=count,
            lease_seconds=lease_seconds,
            client_id=client_id,
            wait_seconds=wait_seconds,
        )
        answer = self._post(f"{_study_path(study)}/trials:suggest", body)
        return parsed(SuggestResponse, answer)

    def report_trials(
        self, study: str, reports: Iterable[TrialReport], *, idempotency_key: str | None = None
    ) -> list[ReportOutcome]:
        """Tell epochs and ends of trials, each given once; what became of each, in their order.

        Reports on a failed trial may be repeated only with the key that they came with first.
        """
        body = message(TrialReports, trials=items_of(reports))
        failed = any(one.end is not None and one.end.state == "FAIL" for one in body.trials)
        path = f"{_study_path(study)}/trials:report"
        answer = self._report(path, body, failed=failed, key=idempotency_key)
        return listed(ReportOutcome, answer, "trials")

    def report(
        self, study: str, number: int, *, attempt: int, epoch: int, metrics: Mapping[str, float]
    ) -> ReportedTrial:
        """Tell the metrics of one epoch, counted from 1; renews the trial's lease.

        `attempt` is the one that `suggest` gave with the trial; an older one is refused with 409.
        """
        body = message(ReportRequest, attempt=attempt, epoch=epoch, metrics=metrics)
        answer = self._report(f"{_trial_path(study, number)}:report", body, failed=False)
        return parsed(ReportedTrial, answer)

    def complete(
        self,
        study: str,
        number: int,
        *,
        attempt: int,
        value: float | None = None,
        state: Literal["COMPLETE", "PRUNED", "FAIL"] = "COMPLETE",
        reason: FailReason | None = None,
        error: str | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Trial:
        """End a trial that `suggest` gave.

        Args:
            attempt: the one that `suggest` gave with the trial; an older one is refused with 409.
            value: left out, the last one reported for the objective's metric; a trial that FAILs
                has none, and one that has come to NaN FAILs as `diverged`.
            reason: of a failure; left out, `crashed`.  `crashed`, `out_of_memory` and `timeout` are
                tried again until the service's `max_charges` failures (RIDGELINE_MAX_CHARGES);
                `diverged` and `cancelled` are final.
            error: what went wrong, in the words of your program.
            metrics: others to keep with the trial, such as those on the test part.
        """
        body = message(
            CompleteRequest,
            attempt=attempt,
            value=value,
            state=state,
            reason=reason,
            error=error,
            metrics={} if metrics is None else metrics,
        )
        path = f"{_trial_path(study, number)}:complete"
        return parsed(Trial, self._report(path, body, failed=state == "FAIL"))

    # -- what there is ---------------------------------------------------------------------------

    def tasks(self) -> list[TaskInfo]:
        return list(self._pages("/v1/tasks", "tasks", TaskInfo))

    def datasets(self) -> list[Dataset]:
        return list(self._pages("/v1/datasets", "datasets", Dataset))

    def workers(self) -> list[Worker]:
        return list(self._pages("/v1/workers", "workers", Worker))

    def is_ready(self) -> bool:
        """Whether the service answers and its database does; tried once."""
        return self.why_not_ready() is None

    def why_not_ready(self) -> str | None:
        """Why the service cannot do its work, tried once; None: it can.

        An empty text where it does not answer at all.
        """
        return self._connection.why_not_ready()

    # -- workers ---------------------------------------------------------------------------------

    def register_worker(self, registration: WorkerRegistration) -> WorkerRegistered:
        return parsed(WorkerRegistered, self._post("/v1/workers", registration))

    def sync(self, worker_id: str, request: SyncRequest) -> SyncResponse:
        """State what a worker holds; its `sync_seq` makes a repetition harmless."""
        path = f"/v1/workers/{quote(worker_id, safe='')}:sync"
        answer = self._connection.post(path, request, idempotency_key=None)
        return parsed(SyncResponse, answer)

    def put_checkpoint(
        self,
        worker_id: str,
        run: int,
        *,
        attempt: int,
        epoch: int,
        program: str,
        content: bytes,
    ) -> CheckpointInfo:
        """Have the state of a run kept that the worker holds; sending it again is harmless."""
        parameters: dict[str, str | int] = {
            "attempt": attempt,
            "epoch": epoch,
            "program": program,
        }
        path = _checkpoint_path(worker_id, run)
        return parsed(CheckpointInfo, self._connection.put_file(path, parameters, content))

    def get_checkpoint(self, worker_id: str, run: int, *, attempt: int) -> tuple[int, bytes]:
        """The epoch and the content of the newest checkpoint of a run that the worker holds."""
        path = _checkpoint_path(worker_id, run)
        return self._connection.get_file(path, {"attempt": attempt}, EPOCH)

    # -- the call itself -------------------------------------------------------------------------

    def _post(
        self, path: str, body: BaseModel | Mapping[str, Any] | None, key: str | None = None
    ) -> httpx.Response:
        """A POST that has its effect once, however often it is sent."""
        return self._connection.post(
            path, body, idempotency_key=str(uuid.uuid4()) if key is None else key
        )

    def _report(
        self, path: str, body: BaseModel, *, failed: bool, key: str | None = None
    ) -> httpx.Response:
        """A report may be repeated as it is, but a failure only until its trial is handed out."""
        if not failed:
            return self._connection.post(path, body, idempotency_key=None)
        return self._post(path, body, key)

    def _report_at(self, path: str, format: ReportFormat) -> str:
        return self._connection.get(f"{path}/report", plain({"format": format})).text

    def _verb(self, name: str, verb: str) -> Study:
        return parsed(Study, self._post(f"{_study_path(name)}:{verb}", None))

    def _comparison_verb(
        self, name: str, verb: str, body: ExtendRequest | None = None
    ) -> Comparison:
        return parsed(Comparison, self._post(f"{_comparison_path(name)}:{verb}", body))

    def _pages(
        self, path: str, key: str, model: type[_Model], **filters: str | bool | None
    ) -> Iterator[_Model]:
        params: dict[str, str | int] = {"page_size": _PAGE_SIZE}
        params.update({name: value for name, value in plain(filters).items() if value is not None})
        while True:
            answer = self._connection.get(path, params)
            yield from listed(model, answer, key)
            token = fields(answer).get("next_page_token")
            if token is None:
                return
            params["page_token"] = token


def _checkpoint_path(worker_id: str, run: int) -> str:
    return f"/v1/workers/{quote(worker_id, safe='')}/runs/{run}/checkpoint"


def _study_path(name: str) -> str:
    """The path of a study; a name that none can have, `..` say, would lead elsewhere."""
    try:
        return f"/v1/studies/{_STUDY_NAME.validate_python(plain(name))}"
    except ValidationError as exc:
        raise ApiError(404, "Not found", f"there is no study named {name!r}") from exc


def _comparison_path(name: str) -> str:
    """The path of a comparison; see `_study_path`."""
    try:
        return f"/v1/comparisons/{_COMPARISON_NAME.validate_python(plain(name))}"
    except ValidationError as exc:
        raise ApiError(404, "Not found", f"there is no comparison named {name!r}") from exc


def _trial_path(study: str, number: int) -> str:
    path = _study_path(study)
    try:
        return f"{path}/trials/{_TRIAL_NUMBER.validate_python(plain(number))}"
    except ValidationError as exc:
        raise ApiError(404, "Not found", f"{study} has no trial {number!r}") from exc
