"""What is told of open runs and becomes of them: pure values, for `Ledger.take` to write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ridgeline.search.measures import Measures
from ridgeline.service.lifecycle import FailReason, RunState
from ridgeline.service.store.rows import RunRow


@dataclass(frozen=True)
class Outcome:
    """The state that a run goes to, what it has cost, and its other columns that change."""

    state: RunState
    device_seconds: float = 0.0
    values: Mapping[str, Any] = field(default_factory=dict)
    study_fails: str | None = None
    """Why no run of its study can come to a better end."""


@dataclass(frozen=True)
class News:
    """What is told of an open run.

    Attributes:
        run: as it stands in the database.
        program: that trains it, if that is news; where another one was known, the run has begun
            anew, and what was told of it before is void.
        epochs: metrics by finished epoch.
        outcome: what becomes of it, if it does not go on.
    """

    run: RunRow
    program: str | None = None
    epochs: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    outcome: Outcome | None = None

    @property
    def begins_anew(self) -> bool:
        """Whether the run has left the program of its checkpoint, and what was made by it."""
        return self.program is not None and self.run.program not in (None, self.program)

    @property
    def waits_again(self) -> bool:
        return self.outcome is not None and self.outcome.state is RunState.WAITING

    @property
    def study_fails(self) -> str | None:
        return None if self.outcome is None else self.outcome.study_fails


CANCELLED = Outcome(RunState.FAIL, values={"reason": FailReason.CANCELLED})
"""Of a run that waits or is RUNNING."""


def completed(
    *,
    value: float | None,
    state: RunState = RunState.COMPLETE,
    kept_epoch: int | None = None,
    metrics: Mapping[str, float],
    measures: Measures | None = None,
    pruned_by_version: int | None = None,
    device_seconds: float = 0.0,
) -> Outcome:
    """RUNNING → COMPLETE or PRUNED, the latter by the rules of some version or by a wish."""
    values = {
        "value": value,
        "kept_epoch": kept_epoch,
        "metrics": dict(metrics),
        "measures": None if measures is None else measures.model_dump(mode="json"),
        "pruned_by_version": pruned_by_version,
    }
    return Outcome(state, device_seconds, values)


def failed(
    reason: FailReason,
    *,
    error: str | None = None,
    log_tail: str | None = None,
    device_seconds: float = 0.0,
) -> Outcome:
    """RUNNING → FAIL, for good."""
    values = {"reason": reason, "error": error, "log_tail": log_tail}
    return Outcome(RunState.FAIL, device_seconds, values)


def never_trains(error: str, *, device_seconds: float = 0.0) -> Outcome:
    """RUNNING → FAIL, and the study with it: every run of it would fail like this."""
    values = {"reason": FailReason.CRASHED, "error": error}
    return Outcome(RunState.FAIL, device_seconds, values, study_fails=error)


def charged(
    run: RunRow,
    reason: FailReason,
    *,
    max_charges: int,
    error: str | None = None,
    log_tail: str | None = None,
    device_seconds: float = 0.0,
) -> Outcome:
    """A failure blamed on the run alone: it waits for another try, or fails for good."""
    values: dict[str, Any] = {
        "charges": run.charges + 1,
        "error": error,
        "log_tail": log_tail,
    }
    if run.charges + 1 < max_charges:
        return Outcome(RunState.WAITING, device_seconds, values)
    return Outcome(RunState.FAIL, device_seconds, {**values, "reason": reason})


def handed_back(*, device_seconds: float = 0.0) -> Outcome:
    """RUNNING → WAITING, uncharged."""
    return Outcome(RunState.WAITING, device_seconds)


def held_seconds(run: RunRow, now: float) -> float:
    """How long ago a RUNNING run was handed out; 0 where the clock has been set back since."""
    assert run.started_at is not None
    return max(0.0, now - run.started_at)


def run_after(news: News, *, now: float, revision: int, has_checkpoint: bool) -> RunRow:
    """The run after news that change it.

    One that waits again keeps its program where it has a checkpoint, which goes on in that one
    alone.  Without, it has lost its program too: nothing made by it is left.
    """
    run, outcome = news.run, news.outcome
    values: dict[str, Any] = {"revision": revision}
    if news.program is not None:
        values["program"] = news.program
    if outcome is None:
        return run._replace(**values)
    values |= {
        "state": outcome.state,
        "lease_expires_at": None,
        "device_seconds": run.device_seconds + outcome.device_seconds,
        **outcome.values,
    }
    if outcome.state is RunState.WAITING:
        values |= dict.fromkeys(("worker_id", "device", "client_id", "started_at"))
        if not has_checkpoint:
            values["program"] = None
    else:
        values["finished_at"] = now
    return run._replace(**values)


def by_trial(news: Iterable[News]) -> dict[int, list[News]]:
    """News by the id of the trial, both in the order given."""
    found: dict[int, list[News]] = {}
    for one in news:
        found.setdefault(one.run.trial_id, []).append(one)
    return found
