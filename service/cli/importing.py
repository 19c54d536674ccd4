"""`ridgeline import`: what people have searched with other tools, as a study file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ridgeline.search.foreign.draft import Draft, Refused, study_name
from ridgeline.search.foreign.katib import is_katib, of_katib
from ridgeline.search.foreign.optuna import of_storage
from ridgeline.search.foreign.trials_csv import of_trials_csv
from ridgeline.search.foreign.wandb import of_wandb
from ridgeline.search.spec import InvalidSpec, parse_spec
from ridgeline.service.cli.output import write
from ridgeline.service.cli.problems import Problem, complain, file_problems
from ridgeline.service.cli.yaml_file import read_yaml, refused, yaml_text

MAX_CSV_BYTES = 64 * 2**20

Format = Literal["wandb", "katib", "optuna"]


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE_OR_URL",
            help="A W&B sweep, a Katib experiment, the CSV of an Optuna study, or the URL of its "
            "storage.",
        ),
    ],
    format: Annotated[
        Format | None,
        typer.Option("--format", help="What it is; left out: as it looks.", show_default=False),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            help="The study in an Optuna storage; left out: the only one.", show_default=False
        ),
    ] = None,
    task: Annotated[
        Path | None,
        typer.Option(
            help="A YAML file with the task and other fields to put in; left out: external.",
            show_default=False,
        ),
    ] = None,
    best: Annotated[
        Path | None,
        typer.Option(
            help="A file for the ten best configurations of an Optuna study.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write; left out: standard output."),
    ] = None,
) -> None:
    """Write the study that a search of another tool describes.

    What has no counterpart is told line by line on standard error.
    """
    draft, spec = _translated(source, format, study)
    if best is not None and not draft.best:
        raise Problem("--best: there are no finished trials in it to choose from", exit_code=2)
    _check(spec)
    if task is not None:
        spec = _with_task(spec, task)
    for field, what in draft.notes:
        complain(f"{field}: {what}")
    write(yaml_text(spec), output)
    if best is not None:
        write(yaml_text(draft.best), best)


def _translated(
    source: str, format: Format | None, study: str | None
) -> tuple[Draft, dict[str, Any]]:
    """The draft and its spec.

    Raises:
        Problem: the source cannot be read, or is nothing that is known.
    """
    is_url = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source) is not None
    # Errors name a URL without the password in it.
    named = source if source.startswith("sqlite") else re.sub(r"//.*@", "//", source)
    if is_url and format in (None, "optuna"):
        try:
            draft = of_storage(source, study)
            return draft, draft.spec()
        except Refused as exc:
            raise _problem(named, exc.problems) from exc
    if is_url:
        raise Problem(f"{named}: {format} is read from a file; fetch it first", exit_code=2)
    if study is not None:
        raise Problem("--study: is for the URL of an Optuna storage", exit_code=2)
    path = Path(source)
    if format == "optuna" or (format is None and path.suffix.lower() == ".csv"):
        try:
            draft = of_trials_csv(_csv_text(path), study_name(path.stem, "imported"))
            return draft, draft.spec()
        except Refused as exc:
            raise _problem(source, exc.problems) from exc
    root, data = read_yaml(path, keeps_floats=True)
    if format is None and is_katib(data):
        format = "katib"
    elif format is None and isinstance(data, dict) and "method" in data:
        format = "wandb"
    if format is None:
        raise Problem(
            f"{source}: is no W&B sweep (with method:) and no Katib experiment "
            "(with kind: Experiment)",
            exit_code=2,
        )
    try:
        draft = (of_katib if format == "katib" else of_wandb)(
            data, study_name(path.stem, "imported")
        )
        return draft, draft.spec()
    except Refused as exc:
        raise refused(path, root, exc.problems) from exc


def _csv_text(path: Path) -> str:
    with file_problems(f"read {path}", exit_code=2), path.open("rb") as file:
        content = file.read(MAX_CSV_BYTES + 1)
    if len(content) > MAX_CSV_BYTES:
        raise Problem(f"{path}: is larger than {MAX_CSV_BYTES} bytes", exit_code=2)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise Problem(f"{path}: is no CSV in UTF-8", exit_code=2) from exc


def _check(spec: dict[str, Any]) -> None:
    try:
        parse_spec(spec)
    except InvalidSpec as exc:
        raise _problem("as a study", exc.problems) from exc


def _with_task(spec: dict[str, Any], path: Path) -> dict[str, Any]:
    """The spec with the fields of a file, which go before those that it has.

    Raises:
        Problem: the file has no task, or they do not fit together.
    """
    root, fields = read_yaml(path)
    if not isinstance(fields, dict) or "task" not in fields:
        raise Problem(f"{path}: must be a mapping with task: in it", exit_code=2)
    merged = dict(spec)
    for key, value in fields.items():
        old = merged.get(key)
        is_merged = isinstance(old, dict) and isinstance(value, dict) and key != "task"
        merged[key] = {**old, **value} if is_merged and old else value
    try:
        parse_spec(merged)
    except InvalidSpec as exc:
        raise refused(path, root, exc.problems) from exc
    return merged


def _problem(where: str, problems: Iterable[tuple[str, str]]) -> Problem:
    lines = [
        f"{where}: {field}: {what}" if field else f"{where}: {what}" for field, what in problems
    ]
    return Problem(*lines, exit_code=2)
