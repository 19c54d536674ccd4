"""The installed tasks: those built in, and those that other packages bring.

A package brings tasks by entry points of the group `ridgeline.tasks`, each of which names a `Task`
and has its name.  One that cannot be used is left out, so that it costs nobody else anything.
"""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import FrameType
from typing import Any, get_args

from pydantic import ConfigDict, ValidationError

from ridgeline.search.tasks.base import Problem, Task
from ridgeline.search.tasks.cnn import CnnTask
from ridgeline.search.tasks.external import ExternalTask
from ridgeline.search.tasks.importing import deadly_modules
from ridgeline.search.tasks.linear import LinearTask
from ridgeline.search.tasks.mlp import MlpTask
from ridgeline.search.tasks.settings import Split, TaskSettings
from ridgeline.search.tasks.text import TextTask

GROUP = "ridgeline.tasks"
BUILT_IN: tuple[Task[Any], ...] = (
    MlpTask(),
    LinearTask(),
    CnnTask(),
    TextTask(),
    ExternalTask(),
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_MAX_REASON = 500

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Installed:
    """What is installed here.

    Attributes:
        tasks: by name, those built in first.
        left_out: why an entry point's task cannot be used, by the entry point and its package.
    """

    tasks: Mapping[str, Task[Any]]
    left_out: Mapping[str, str]


@cache
def installed() -> Installed:
    """The tasks of this process: entry points are looked for once, at the first call."""
    tasks = {task.name: task for task in BUILT_IN}
    left_out: dict[str, str] = {}
    found = sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value))
    num_of_name = Counter(point.name for point in found)
    deadly = deadly_modules(dict.fromkeys(point.module for point in found))
    interrupts = _Interrupts()
    for point in found:
        package = "an unknown package" if point.dist is None else point.dist.name
        try:
            if point.name in (task.name for task in BUILT_IN):
                raise ValueError(f"{point.name} is the name of a built-in task")
            if num_of_name[point.name] > 1:
                raise ValueError(f"several packages have a task {point.name}")
            if point.module in deadly:
                raise ValueError(deadly[point.module])
            with interrupts:
                tasks[point.name] = _loaded(point)
        except BaseException as exc:  # whatever a package does at its import
            if interrupts.have_come:
                raise
            reason = str(exc) if type(exc) is ValueError else f"{type(exc).__name__}: {exc}"
            left_out[f"{point.name} of {package} ({point.value})"] = _one_line(reason)
    return Installed(tasks, left_out)


def log_left_out() -> None:
    """Say in the log which tasks cannot be used, and why."""
    for which, reason in installed().left_out.items():
        _log.warning("left out: the task %s: %s", which, reason)


def why_not_installed(name: str) -> str | None:
    """Why a task of that name is not among the installed ones; None where nobody brings one."""
    for which, reason in installed().left_out.items():
        if which.startswith(f"{name} of "):
            return f"the task {which} cannot be used: {reason}"
    if entry_points(group=GROUP, name=name):
        return f"{name} was installed after this program had started: start it again"
    return None


def problems_by(task: Task[Any], find: Callable[[], Iterable[Problem]]) -> list[Problem]:
    """The problems that a task finds; what the code of a package raises meanwhile is one itself."""
    try:
        return list(find())
    except Exception as exc:
        if task in BUILT_IN:
            raise
        reason = _one_line(f"{type(exc).__name__}: {exc}")
        return [("task", f"the code of the task {task.name} fails: {reason}")]


def task_of(settings: TaskSettings) -> Task[Any]:
    """The task that these are the settings of; a stand-in where it is not installed here."""
    if isinstance(settings, NotInstalledSettings):
        return NotInstalledTask(settings.name)
    return task_named(settings.name)


def task_named(name: str) -> Task[Any]:
    """The task of that name; a stand-in, which nobody can train, where it is not installed here."""
    return installed().tasks.get(name) or NotInstalledTask(name)


def of_package(name: str) -> Task[Any]:
    """The task of that name that a package brings; no other package is imported.

    Raises:
        LookupError: no package brings one; and whatever importing it raises.
    """
    for point in entry_points(group=GROUP, name=name):
        return _loaded(point)
    raise LookupError(f"no installed package brings the task {name}")


def of_workers() -> tuple[Task[Any], ...]:
    """The tasks that workers on this machine can train."""
    return tuple(task for task in installed().tasks.values() if task.trained_by == "workers")


def first_of_workers() -> Task[Any]:
    """The first of the tasks that workers train, which examples and measurements go by."""
    return next(task for task in BUILT_IN if task.trained_by == "workers")


class NotInstalledSettings(TaskSettings):
    """Settings of a task that is not installed here, kept as they are."""

    model_config = ConfigDict(extra="allow")


class NotInstalledTask(Task[NotInstalledSettings]):
    """Stands for a task that a study in the database has, and that is installed no more."""

    settings = NotInstalledSettings
    trained_by = "nobody"
    parameters = None
    metrics = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.example = {"name": name}

    def num_divisions(self, settings: NotInstalledSettings) -> int:
        """As it was when the task was installed: a study's trials have as many runs ever after."""
        try:
            return Split.model_validate((settings.model_extra or {}).get("split", {})).num_divisions
        except ValidationError:
            return 1


class _Interrupts:
    """Tells Ctrl-C from a KeyboardInterrupt that a package raises by itself, within its blocks."""

    def __init__(self) -> None:
        self.have_come = False

    def __enter__(self) -> None:
        self._before = signal.getsignal(signal.SIGINT)
        self._is_watching = (
            callable(self._before) and threading.current_thread() is threading.main_thread()
        )
        if self._is_watching:
            signal.signal(signal.SIGINT, self._note)

    def __exit__(self, *raised: object) -> None:
        if self._is_watching:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.have_come = True
        if callable(self._before):
            self._before(number, frame)


def _one_line(text: str) -> str:
    kept = text[:_MAX_REASON]
    return " ".join("".join(c if c.isprintable() else " " for c in kept).split())


def _loaded(point: EntryPoint) -> Task[Any]:
    """The task that an entry point names.

    Raises:
        ValueError: it names something else; and whatever importing it raises.
    """
    task = point.load()
    if not isinstance(task, Task):
        raise ValueError(f"is no Task but {type(task).__name__}")
    if not _NAME.fullmatch(point.name) or task.name != point.name:
        raise ValueError(f"the task is called {task.name!r}, its entry point {point.name!r}")
    if task.trained_by not in ("workers", "program"):
        raise ValueError(f"trained_by is {task.trained_by!r}")
    if not (isinstance(task.settings, type) and issubclass(task.settings, TaskSettings)):
        raise ValueError("its settings are no TaskSettings")
    if get_args(task.settings.model_fields["name"].annotation) != (task.name,):
        raise ValueError(f'the name of its settings is not Literal["{task.name}"]')
    task.settings.model_json_schema()  # it becomes a part of the API's document
    settings = task.settings.model_validate(dict(task.example))
    # What lists and describes tasks asks for these, so one that raises in them is left out.
    _ = str(task.description), dict(task.parameters or {}), dict(task.metrics or {})
    _ = task.data(settings), dict(task.defaults(None)), dict(task.defaults(settings))
    return task
