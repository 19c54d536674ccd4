"""What goes wrong for a person, told in one line on standard error, never as a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from http import HTTPStatus
from importlib.util import find_spec
from typing import Any, TextIO, cast

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

from ridgeline.search.problems import validation_problems
from ridgeline.service.cli.help_text import without_types_of_flags
from ridgeline.service.client import ApiError, ClientError
from ridgeline.service.errors import InvalidInput, ServiceError
from ridgeline.service.texts import printable


class Problem(Exception):
    """Ends the command with `exit_code`; each of `lines` is one thing to put right."""

    def __init__(self, *lines: str, exit_code: int = 1) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines
        self.exit_code = exit_code


class OneLineErrors(TyperGroup):
    """A group of commands whose errors are lines that begin with `ridgeline:`."""

    def get_params(self, ctx: Any) -> list[Any]:
        return without_types_of_flags(super().get_params(ctx))

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            with checked_output():
                status = super().main(*args, **{**extra, "standalone_mode": False})
        except typer.TyperException as exc:
            path = getattr(getattr(exc, "ctx", None), "command_path", None)
            see = f" (see {path} --help)" if path else ""
            reason = exc.format_message().replace(": Value error, ", ": ").rstrip(".")
            complain(f"{reason}{see}")
            status = exc.exit_code
        except Problem as exc:
            for line in exc.lines:
                complain(line)
            status = exc.exit_code
        except (ClientError, ServiceError) as exc:
            refused = isinstance(exc, ApiError) and exc.status == HTTPStatus.UNAUTHORIZED
            token = "; RIDGELINE_TOKEN or RIDGELINE_TOKEN_FILE gives the token" if refused else ""
            complain(f"{exc}{token}")
            status = 2 if isinstance(exc, InvalidInput) else 1
        except ModuleNotFoundError as exc:
            if exc.name is None or exc.name.startswith("ridgeline"):
                raise
            part = "worker" if exc.name == "torch" else "server"
            complain(f'{exc.name} is not installed; pip install "ridgeline[{part}]" brings it')
            status = 2
        except typer.Abort:
            status = 1
        sys.exit(status if isinstance(status, int) else 0)


def needs_torch() -> None:
    """Check that torch is installed, without the seconds that importing it takes.

    Raises:
        ModuleNotFoundError: it is not.
    """
    if find_spec("torch") is None:
        raise ModuleNotFoundError(name="torch")


@contextmanager
def file_problems(doing: str, *, exit_code: int = 1) -> Iterator[None]:
    """Tell an OSError as "cannot <doing>: <reason>"."""
    try:
        yield
    except OSError as exc:
        # Not exc.strerror, to which socket.create_server adds the address again; but errors of
        # name resolution have numbers of their own.
        reason = os.strerror(exc.errno) if exc.errno and exc.errno > 0 else exc.strerror or exc
        raise Problem(f"cannot {doing}: {reason}", exit_code=exit_code) from exc


@contextmanager
def refused_options() -> Iterator[None]:
    """Tell each field that the service refuses as the option it is from, on a line of its own."""
    try:
        yield
    except ApiError as exc:
        if exc.status != HTTPStatus.UNPROCESSABLE_ENTITY or not exc.problems:
            raise
        lines = [f"{_option_of(field)}: {reason}" for field, reason in exc.problems]
        raise Problem(*lines, exit_code=2) from exc


def _option_of(field: str) -> str:
    """The option that a field is from; a part of a spec is as people know it."""
    if field in ("trials", "seconds"):
        return f"--{field}"
    return f"--set {field}" if field.split(".")[0] == "space" else field or "the request"


@contextmanager
def input_problems(name_of: Callable[[str], str] = str) -> Iterator[None]:
    """Tell each field that pydantic refuses on a line of its own, under the name people know."""
    try:
        yield
    except ValidationError as exc:
        lines = [f"{name_of(field)}: {reason}" for field, reason in validation_problems(exc)]
        raise Problem(*lines, exit_code=2) from exc


@contextmanager
def checked_output() -> Iterator[None]:
    """Tell what the block cannot write to standard output, down to the last byte.

    Where the reader has gone, as `head` does, nothing is told, and the exit status is 1.

    Raises:
        Problem: something could not be written.
    """
    if sys.stdout is None:  # whoever started this has closed it
        yield
        return
    checked = _CheckedOutput(sys.stdout)
    with redirect_stdout(cast(TextIO, checked)):
        yield
        checked.flush()


class _CheckedOutput:
    """A text stream whose errors are problems; after the first one it takes nothing more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._problem: Problem | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._problems():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._problems():
            self._stream.flush()

    @contextmanager
    def _problems(self) -> Iterator[None]:
        if self._problem is not None:
            raise self._problem
        try:
            with file_problems("write to standard output"):
                yield
        except UnicodeEncodeError as exc:
            raise Problem(
                f"cannot write {exc.object[exc.start]!a} to standard output, whose encoding is "
                f"{exc.encoding}; PYTHONIOENCODING=utf-8 makes it one that has everything"
            ) from exc
        except Problem as exc:
            self._drop_the_rest()
            has_reader = not isinstance(exc.__cause__, BrokenPipeError)
            # Kept, since typer tries a stream with an empty text and takes no notice of the error.
            self._problem = exc if has_reader else Problem()
            raise self._problem from exc.__cause__

    def _drop_the_rest(self) -> None:
        """The interpreter would try to write what is in the buffer once more at its end."""
        with suppress(OSError):  # a stream without a descriptor
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


def complain(line: str) -> None:
    """Tell something on standard error, where that can be written to."""
    with suppress(OSError):  # there is no other place to tell that this one is full
        print(f"ridgeline: {printable(line)}", file=sys.stderr, flush=True)
