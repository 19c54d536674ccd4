"""The device of functions: calls as many at once as it has slots, each in a process of its own.

To the agent it is like the process of any other device, but it never dies: what a function does
costs its own run alone.
"""

from __future__ import annotations

import logging
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ridgeline.search.scratch import ScratchFolder
from ridgeline.search.tasks.function import FunctionTask
from ridgeline.search.tasks.registry import task_named
from ridgeline.service import logs
from ridgeline.service.protocol import (
    FUNCTIONS,
    DeviceInfo,
    RunEnded,
    RunOrder,
    RunReport,
    StudyRules,
)
from ridgeline.service.texts import printable, sendable
from ridgeline.service.worker.bench import MAX_ERROR, MAX_LOG
from ridgeline.service.worker.functions.guarded import Guarded, environment
from ridgeline.service.worker.functions.lines import Line
from ridgeline.service.worker.functions.slots import FunctionSlots
from ridgeline.service.worker.messages import (
    Checkpoint,
    FromDevice,
    Hello,
    Key,
    Started,
    key_of,
)
from ridgeline.service.worker.shares import Shares

FUNCTION_SCRATCH_PREFIX = "ridgeline-function-"
"""Of the folders in which functions are called."""

_log = logging.getLogger(__name__)


@dataclass
class _Run:
    """A run that has begun."""

    order: RunOrder
    metric: str
    guarded: Guarded
    scratch: ScratchFolder | None
    program: str
    is_stopped: bool = False
    has_ended: bool = False
    """Whether its end was told."""


class FunctionDevice:
    """Calls the functions that orders name.

    Args:
        clock: monotonic seconds.
        wake: called, from any thread, when `poll` has something to do.
    """

    name = FUNCTIONS
    isolates = True
    due_at = float("inf")

    def __init__(
        self, slots: FunctionSlots, *, clock: Callable[[], float], wake: Callable[[], None]
    ) -> None:
        self._slots = slots
        self._clock = clock
        self._wake = wake
        self._shares = Shares(clock)
        self._waiting: deque[RunOrder] = deque()
        self._running: dict[Key, _Run] = {}
        self._rules: dict[tuple[str, int], StudyRules] = {}
        self._unsaid: list[FromDevice] = [Hello(self._info(), None)]
        wake()

    def _info(self) -> DeviceInfo:
        threads = f"{self._slots.threads} thread{'s' * (self._slots.threads > 1)} each"
        return DeviceInfo(
            name=self.name,
            kind=FUNCTIONS,
            description=f"processes of functions, {threads}",
            num_slots=self._slots.count,
        )

    # ---- what the agent wants

    def start(self, order: RunOrder, checkpoint: Checkpoint | None = None) -> None:
        """Have a run begin once there is a slot for it."""
        self._waiting.append(order)
        self._fill()

    def stop(self, key: Key) -> None:
        """End a run at once, or have it not begin."""
        if (run := self._running.get(key)) is not None:
            run.is_stopped = True
            run.guarded.hang_up()
        else:
            self._waiting = deque(order for order in self._waiting if key_of(order) != key)

    def set_rules(self, rules: StudyRules) -> None:
        """Prune the runs of a bracket of a study by these rules."""
        self._rules[rules.study, rules.bracket] = rules
        for run in self._running.values():
            if _ruled_by(run.order) == (rules.study, rules.bracket):
                run.guarded.set_rules(_line_of(rules))

    def kill(self, why: str, *, is_hung: bool) -> None:
        """End the guards of runs that were stopped, and did not end by that."""
        for run in self._running.values():
            if run.is_stopped:
                run.guarded.kill()

    def hang_up(self) -> None:
        """End all runs, without waiting for that."""
        for run in self._running.values():
            run.guarded.hang_up()

    def poll(self) -> Iterator[FromDevice]:
        """What has happened since the last call."""
        said, self._unsaid = self._unsaid, []
        yield from said
        for key, run in list(self._running.items()):
            has_ended = run.guarded.has_ended
            for line in run.guarded.heard():
                yield from self._messages(key, run, line)
            if has_ended:
                yield from self._bury(key, run)
        self._fill()

    def finish(self, deadline: float) -> list[FromDevice]:
        """Wait for the runs that were hung up on, and kill them at `deadline`; their last words."""
        for run in self._running.values():
            run.guarded.wait(max(0.0, deadline - self._clock()))
            if not run.guarded.has_ended:
                run.guarded.kill()
        self._waiting.clear()
        said = []
        for key, run in list(self._running.items()):
            said += [one for line in run.guarded.heard() for one in self._messages(key, run, line)]
            self._forget(key, run)
        return said

    # ----

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._slots.count:
            order = self._waiting.popleft()
            with _about(order):
                try:
                    run = self._running[key_of(order)] = self._begin(order)
                except (OSError, LookupError) as exc:
                    outcome = "crashed" if isinstance(exc, OSError) else "failed"
                    error = f"its process could not be started: {exc}"
                    self._unsaid.append(self._end(order, outcome, error=error))
                else:
                    self._unsaid.append(Started(key_of(order), run.program))
                self._wake()

    def _begin(self, order: RunOrder) -> _Run:
        """Start the guard of a run.

        Raises:
            LookupError: its task is not a function that is installed here.
            OSError: there is no room for another process.
        """
        task = task_named(order.task["name"])
        if not isinstance(task, FunctionTask):
            raise LookupError(f"the task {task.name} is not a function that is installed here")
        scratch = _scratch_folder()
        folder = Path(tempfile.gettempdir()) if scratch is None else scratch.path
        try:
            guarded = Guarded(
                {"task": task.name, "config": order.config, "seed": order.seed},
                self._slots.limits(task, order),
                env=environment(self._slots.threads, None if scratch is None else folder),
                folder=folder,
                wake=self._wake,
            )
        except OSError:
            if scratch is not None:
                scratch.remove()
            raise
        if (rules := self._rules.get(_ruled_by(order))) is not None:
            guarded.set_rules(_line_of(rules))
        self._shares.begin(key_of(order))
        return _Run(order, task.metric, guarded, scratch, task.program)

    def _messages(self, key: Key, run: _Run, line: Line) -> Iterator[FromDevice]:
        """What a line of a guard says to the agent."""
        if run.is_stopped or run.has_ended:
            return
        try:
            if "step" in line:
                number, attempt = key
                metrics = {run.metric: line["value"]}
                yield RunReport(run=number, attempt=attempt, epoch=line["step"], metrics=metrics)
            elif "end" in line:
                run.has_ended = True
                yield self._told_end(run, line["end"], line["output"])
        except ValidationError:  # the function's code has found the guard's ear itself
            run.has_ended = True
            run.guarded.hang_up()
            error = "what the function's process told cannot be read"
            yield self._end(run.order, "crashed", program=run.program, error=error)

    def _told_end(self, run: _Run, end: Line, output: str) -> RunEnded:
        value, error = end.get("value"), end.get("error")
        if error is not None:
            with _about(run.order):
                _log.warning("a run failed: %s", printable(error))
        return self._end(
            run.order,
            end["outcome"],
            program=run.program,
            value=value,
            kept_epoch=end.get("step"),
            metrics={} if value is None else {run.metric: value},
            rule_version=end.get("rule_version"),
            error=error,
            log_tail=None if error is None else sendable(output)[-MAX_LOG:],
        )

    def _bury(self, key: Key, run: _Run) -> Iterator[RunEnded]:
        """A guard has ended, and nothing is left of the run."""
        if not run.has_ended:
            stopped, died = "stopped", f"the process that guards it {run.guarded.death}"
            outcome = stopped if run.is_stopped else "crashed"
            error = None if run.is_stopped else died
            yield self._end(run.order, outcome, program=run.program, error=error)
        self._forget(key, run)

    def _end(
        self, order: RunOrder, outcome: str, *, error: str | None = None, **values: Any
    ) -> RunEnded:
        return RunEnded.model_validate(
            {
                "run": order.run,
                "attempt": order.attempt,
                "outcome": outcome,
                "error": None if error is None else sendable(error)[:MAX_ERROR],
                "device_seconds": self._shares.seconds(key_of(order)),
                **values,
            }
        )

    def _forget(self, key: Key, run: _Run) -> None:
        self._shares.end(key)
        del self._running[key]
        if run.scratch is not None:
            run.scratch.remove()


def _ruled_by(order: RunOrder) -> tuple[str, int]:
    return order.study, order.bracket


def _line_of(rules: StudyRules) -> Line:
    return rules.model_dump(
        mode="json", include={"version", "direction", "thresholds", "predictions"}
    )


def _about(order: RunOrder) -> AbstractContextManager[None]:
    return logs.about(
        device=FUNCTIONS,
        study=order.study,
        trial=order.trial,
        run=order.run,
        attempt=order.attempt,
    )


def _scratch_folder() -> ScratchFolder | None:
    try:
        return ScratchFolder(FUNCTION_SCRATCH_PREFIX)
    except OSError as exc:
        _log.warning("no folder for a function's temporary files: %s", exc)
        return None
