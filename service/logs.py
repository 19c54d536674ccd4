"""How every process logs: one place for the format, the ids of a line, and what must not be in it.

`set_up` is called once a process.  A line tells the ids that `about` has bound where it was logged:
of the request, the study, the trial, the run and its attempt, the worker, the device.  Tokens and
passwords in URLs are blotted out, wherever in a line they stand, tracebacks included.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from io import TextIOBase
from typing import Literal, get_args

from ridgeline.service.texts import printable

LogFormat = Literal["text", "json"]
LOG_FORMATS: tuple[LogFormat, ...] = get_args(LogFormat)

Ids = Mapping[str, object]

_of_process: dict[str, object] = {}
_ids: ContextVar[Ids] = ContextVar("ids", default={})  # noqa: B039  # it is never changed
_TOKEN = re.compile(r"\b(rl_[0-9A-Za-z]+)_[0-9A-Za-z_-]+")
_USERINFO = re.compile(r"(\w://[^\s/:@'\"]*):[^\s@'\"]*@")


def set_up(format: LogFormat, *, keep: Callable[[logging.LogRecord], bool] | None = None) -> None:
    """Log to the standard error, warnings of libraries too.

    Args:
        keep: which records; left out: all of level INFO and above.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if format == "json" else TextLines())
    if keep is not None:
        handler.addFilter(keep)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)
    # One line for each request to the dashboard or the api would hide all others.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def identify(**ids: object) -> None:
    """Have all that this process logs from now on name these ids."""
    _of_process.update(ids)


@contextmanager
def about(**ids: object) -> Iterator[None]:
    """Have what is logged in the block name these ids, besides those around it; None names none."""
    bound = _ids.set({**_ids.get(), **{k: v for k, v in ids.items() if v is not None}})
    try:
        yield
    finally:
        _ids.reset(bound)


def current(name: str) -> object | None:
    """The id that is bound here."""
    return _ids.get().get(name)


def redacted(text: str) -> str:
    """A text without the secrets of tokens and the passwords of URLs."""
    return _USERINFO.sub(r"\1:***@", _TOKEN.sub(r"\1_***", text))


class TextLines(logging.Formatter):
    """For people: `2026-01-02 03:04:05,678 ERROR ridgeline.service.workers: it is lost [worker=9]`.

    What is CRITICAL says why the process ends, and is told like any other error of a command.

    Args:
        names_process: whether each line names the ids of the whole process too.
    """

    def __init__(self, *, names_process: bool = True) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._names_process = names_process

    def formatMessage(self, record: logging.LogRecord) -> str:
        bound = {**(_of_process if self._names_process else {}), **_ids.get()}
        ids = " ".join(f"{name}={printable(str(value))}" for name, value in bound.items())
        return super().formatMessage(record) + (f" [{ids}]" if ids else "")

    def format(self, record: logging.LogRecord) -> str:
        if record.levelno == logging.CRITICAL:
            return f"ridgeline: {printable(redacted(record.getMessage()))}"
        return redacted(super().format(record))


class JsonLines(logging.Formatter):
    """For machines: an object a line, with `time`, `level`, `logger`, `message` and the ids."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": redacted(record.getMessage()),
        }
        ids = {**_of_process, **_ids.get()}
        line |= {k: redacted(v) if isinstance(v, str) else v for k, v in ids.items()}
        if record.exc_info:
            line["exception"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


class LoggedLines(TextIOBase):
    """A file for programs that write their errors to one: each line is logged."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in filter(str.strip, lines):
            self.take(line)
        return len(text)

    def take(self, line: str) -> None:
        """Log a line that is whole and not blank."""
        self._log.error("%s", line)
