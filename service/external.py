"""External studies as the programs that train them see them.

    study = client.external("wing")
    for trial in study:
        trial.report(1, {"drag": 0.5})
        trial.complete()

The leases of the trials that the program has are renewed in the background.  What is reported goes
out in few calls: epochs are gathered for a second, unless the study has a pruner, whose answer
matters at once; an end takes with it what was gathered.  Nothing is forgotten before the service
has it: a call that was not answered is repeated as it was before the next one.  One that is refused
as a whole is made again in halves, down to what is at fault, which is told once.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from ridgeline.service.bodies import message
from ridgeline.service.connection import ApiError, ClientError, Unreachable
from ridgeline.service.external_protocol import (
    MAX_TRIALS_A_CALL,
    EpochReport,
    SuggestedTrial,
    TrialEnd,
)
from ridgeline.service.gathering import Call, Gathered, api_error, refusal
from ridgeline.service.lifecycle import OPEN_STUDY, FailReason
from ridgeline.service.repeating import Repeater
from ridgeline.service.resources import Problem

if TYPE_CHECKING:
    from ridgeline.service.client import Client

GATHER_SECONDS = 1.0
"""How long reports are gathered: calls are few, and people see a curve grow."""

_MAX_EPOCHS_A_CALL = 2_000
"""With a hundred metrics each they come to 10 MB, which the service's limit on bodies allows."""

_NOT_FOUND = 404
_TOO_LARGE = 413
_INVALID = 422

_MAX_SHARE_OF_LEASE = 0.25
"""How old a lease may get before it is renewed, and how long reports wait at most."""

_PATIENCE_SECONDS = 60.0
"""How long a loop waits for a service that does not answer; one that restarts needs less."""

_WAIT_SECONDS = 20.0
"""How long one call waits for a trial: proxies give up on answers that take a minute."""


class ExternalStudy:
    """A study that the calling program trains; made by `Client.external`.

    Its calls raise `ApiError` or `Unreachable`.  An `ApiError` for one trial is raised by the next
    call for that trial, or else by the next `suggest`, `flush` or `close`.  Threads may share it.
    """

    def __init__(
        self,
        client: Client,
        name: str,
        *,
        has_pruner: bool,
        lease_seconds: float,
        client_id: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.reason: str | None = None
        """Why the last `suggest` gave fewer trials than asked for."""
        self._client = client
        self._has_pruner = has_pruner
        self._lease_seconds = lease_seconds
        self._client_id = client_id
        self._gather_seconds = min(GATHER_SECONDS, _MAX_SHARE_OF_LEASE * lease_seconds)
        self._clock = clock
        self._sent_at = clock()
        self._num_batches = 0
        self._gathered: dict[int, Gathered] = {}
        self._calls: list[Call] = []
        """To be made before others; the first one may have been made, without an answer."""
        self._errors: dict[ExternalTrial, Problem] = {}
        self._lock = threading.RLock()
        # Weak: a trial that the program has dropped will never end, and is for others to train.
        self._trials: weakref.WeakSet[ExternalTrial] = weakref.WeakSet()
        self._renewal = Repeater(self.renew, seconds=_MAX_SHARE_OF_LEASE * lease_seconds)
        atexit.register(self._flush_at_exit)

    def __iter__(self) -> Iterator[ExternalTrial]:
        """Trials one after the other, until the study has ended; waits while others have them all.

        A trial that the loop is left with, by an exception or `break`, has crashed: it goes to
        another program, until it has failed `max_charges` times.

        Raises:
            RuntimeError: the body of the loop went on without ending its trial.
        """
        is_open = True
        while is_open:
            trials, is_open = self._next()
            for trial in trials:
                try:
                    yield trial
                    if trial.is_open:
                        raise RuntimeError(
                            f"trial {trial.number} of {self.name} was left open: call its "
                            "complete() in the loop, or take trials with suggest() instead"
                        )
                finally:
                    if trial.is_open:
                        with suppress(ClientError):  # its lease runs out
                            trial.complete(state="FAIL", error="its program left it open")

    def suggest(self, count: int = 1) -> list[ExternalTrial]:
        """At most `count` trials to train; where there are fewer, `reason` says why."""
        return self._suggest(count)[0]

    def _next(self) -> tuple[list[ExternalTrial], bool]:
        """As `_suggest`, for one trial that is waited for; a service that restarts is, too."""
        asked_at = self._clock()
        while True:
            try:
                return self._suggest(1, wait_seconds=_WAIT_SECONDS)
            except Unreachable:
                if self._clock() - asked_at >= _PATIENCE_SECONDS:
                    raise

    def _suggest(
        self, count: int, *, wait_seconds: float = 0.0
    ) -> tuple[list[ExternalTrial], bool]:
        """Trials to train, and whether the study may have more later."""
        self.flush()  # the sampler sees what has ended, and `max_parallel` has room for more
        answer = self._client.suggest(
            self.name,
            count=count,
            lease_seconds=self._lease_seconds,
            client_id=self._client_id,
            wait_seconds=wait_seconds,
        )
        self.reason = answer.reason
        trials = [ExternalTrial(self, suggested) for suggested in answer.trials]
        with self._lock:
            self._trials.update(trials)
            if trials:
                self._renewal.start()
        return trials, answer.state in OPEN_STUDY

    def renew(self) -> None:
        """Renew the leases of the trials that the program has, and send what was gathered.

        Called in the background.  What cannot be sent is sent with the next call.
        """
        with self._lock, suppress(ClientError):
            for trial in sorted(self._trials, key=lambda trial: trial.number):
                if trial.is_open:
                    self._gathered.setdefault(trial.number, Gathered(trial))
            self._send()

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Gather ends too: what the block reports and completes goes out by its end, in few calls.

        With a pruner, `should_prune` of the trials is up to date after the block.
        """
        with self._lock:
            self._num_batches += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_batches -= 1
            self.flush()

    def flush(self) -> None:
        """Send what was gathered."""
        with self._lock:
            self._send()
            if self._errors:
                errors = list(self._errors.values())
                self._errors.clear()
                raise api_error(errors)

    def _flush_at_exit(self) -> None:
        try:
            self.flush()
        except ClientError as exc:
            # Raised here, it would be a traceback that nobody can catch.
            print(f"ridgeline: {self.name}: not all reports were taken: {exc}", file=sys.stderr)

    def close(self) -> None:
        """Send what was gathered; the end of the interpreter does so too."""
        atexit.unregister(self._flush_at_exit)
        self._renewal.stop()
        self.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _add(
        self, trial: ExternalTrial, *, epoch: EpochReport | None, end: TrialEnd | None
    ) -> None:
        with self._lock:
            gathered = self._gathered.get(trial.number)
            if gathered is not None and gathered.trial.attempt != trial.attempt:
                self._send()  # of an attempt that has been given to another
            one = self._gathered.setdefault(trial.number, Gathered(trial))
            if epoch is not None:
                one.epochs.append(epoch)
            one.end = end if one.end is None else one.end
            if self._is_due(trial, has_ended=end is not None):
                self._send()
            error = self._errors.pop(trial, None)
            if error is not None:
                raise api_error([error])

    def _is_due(self, trial: ExternalTrial, *, has_ended: bool) -> bool:
        if self._num_batches == 0 and (has_ended or self._has_pruner):
            return True
        num_epochs = sum(len(one.epochs) for one in self._gathered.values())
        return (
            self._clock() - self._sent_at >= self._gather_seconds
            # Another trial's reports do not renew this one's lease.
            or self._clock() - trial._told_at >= _MAX_SHARE_OF_LEASE * self._lease_seconds
            or len(self._gathered) >= MAX_TRIALS_A_CALL
            or num_epochs >= _MAX_EPOCHS_A_CALL
        )

    def _send(self) -> None:
        while self._calls or self._gathered:
            if not self._calls:
                self._calls.append(self._next_call())
            call = self._calls[0]
            try:
                outcomes = self._client.report_trials(
                    self.name, [one.report() for one in call.told], idempotency_key=call.key
                )
            except ApiError as exc:
                if exc.status == _NOT_FOUND:  # the study was deleted, and its trials with it
                    self._forget_all()
                if exc.status not in (_TOO_LARGE, _INVALID):
                    raise
                self._calls[:1] = self._without_the_refused(call, exc)
                continue
            del self._calls[0]
            self._sent_at = self._clock()
            for one, outcome in zip(call.told, outcomes, strict=True):
                one.trial._told_at = self._sent_at
                one.trial.should_prune |= outcome.should_prune
                if outcome.error is not None:
                    self._errors[one.trial] = outcome.error
                    one.trial.is_open = outcome.error.status == _INVALID
                    if one.end is not None and one.epochs and one.trial.is_open:
                        # Its epochs may be as they should: they go out without it.
                        again = self._gathered.setdefault(one.trial.number, Gathered(one.trial))
                        again.epochs[:0] = one.epochs

    def _forget_all(self) -> None:
        for trial in self._trials:
            trial.is_open = False
        self._calls.clear()
        self._gathered.clear()

    def _without_the_refused(self, call: Call, error: ApiError) -> list[Call]:
        """The calls to make instead of one that is refused as a whole: its halves, one by one.

        So what is too large goes out in parts, and of what cannot be taken nothing else is lost.
        """
        halves = call.halves()
        if not halves:
            (one,) = call.told
            self._errors[one.trial] = refusal(error)
            if one.end is not None:
                one.trial.is_open = True
        return halves

    def _next_call(self) -> Call:
        """As much of what was gathered as one call takes: after an outage there may be more."""
        told: list[Gathered] = []
        num_epochs = 0
        for one in self._gathered.values():
            num_epochs += len(one.epochs)
            if told and (len(told) == MAX_TRIALS_A_CALL or num_epochs > _MAX_EPOCHS_A_CALL):
                break
            told.append(one)
        for one in told:
            del self._gathered[one.trial.number]
        if len(told[0].epochs) > _MAX_EPOCHS_A_CALL:
            told[0], rest = told[0].split(_MAX_EPOCHS_A_CALL)
            self._gathered = {rest.trial.number: rest, **self._gathered}
        return Call(told)


class ExternalTrial:
    """A trial to train; it is the caller's until it ends or the program does."""

    def __init__(self, study: ExternalStudy, suggested: SuggestedTrial) -> None:
        self._study = study
        self.number = suggested.number
        self.attempt = suggested.attempt
        self.config = suggested.config
        self.seed = suggested.seed
        self._told_at = study._clock()
        self.is_open = True
        """Whether it is still to be ended: neither completed nor given to another program."""
        self.should_prune = False
        """Whether the study's pruner has given the trial up: complete it as PRUNED."""

    def report(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Tell the metrics of one epoch, counted from 1; renews the trial's lease.

        Raises:
            ApiError: a number is not finite, say.
        """
        told = message(EpochReport, epoch=epoch, metrics=metrics)
        self._study._add(self, epoch=told, end=None)

    def complete(
        self,
        value: float | None = None,
        *,
        state: Literal["COMPLETE", "PRUNED", "FAIL"] = "COMPLETE",
        reason: FailReason | None = None,
        error: str | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """End the trial; see `Client.complete` for the arguments.

        Raises:
            ApiError: a number is not finite, say.
        """
        end = message(
            TrialEnd,
            state=state,
            value=value,
            reason=reason,
            error=error,
            metrics={} if metrics is None else metrics,
        )
        self.is_open = False
        self._study._add(self, epoch=None, end=end)
