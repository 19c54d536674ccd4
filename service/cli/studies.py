"""Commands of people who search: run, studies, show, cancel, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.console import Console

from search.spec import StudyName
from service import report
from service.cli.environment import open_client
from service.cli.follow import follow as follow_studies
from service.cli.problems import Problem, file_problems
from service.cli.study_file import post_study
from service.client import Client
from service.lifecycle import StudyState, TrialState
from service.resources import Study

NUM_BEST_SHOWN = 10

_STUDY_NAME = TypeAdapter[str](StudyName)


def _possible_name(name: str) -> str:
    """The api would tell the pattern of names, and that is no help in finding a study."""
    try:
        return _STUDY_NAME.validate_python(name)
    except ValidationError as exc:
        raise Problem(f"there is no study named {name!r}") from exc


StudyArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The study's name.", callback=_possible_name)
]
FollowOption = Annotated[
    bool, typer.Option("--follow", "-f", help="Show its progress until it has ended.")
]


def run(
    file: Annotated[Path, typer.Argument(metavar="STUDY.YAML", help="The study's description.")],
    follow: FollowOption = False,
) -> None:
    """Post a study.

    With --follow, the exit status is 0 when the study is COMPLETED and 1 when it is FAILED or
    CANCELLED; Ctrl-C leaves the study running.
    """
    with open_client() as client:
        study = post_study(client, file)
        if follow:
            _follow(client, study.name)
        else:
            typer.echo(f"{study.name} is queued, {study.num_trials} trials.")
            typer.echo(f"Watch it with: ridgeline show {study.name} --follow")


def list_studies() -> None:
    """List the studies, newest first."""
    with open_client() as client:
        _console().print(report.studies_table(client.studies()))


def show(name: StudyArgument, follow: FollowOption = False) -> None:
    """Show a study: its state, why it waits, its best trials and what they reach on test."""
    with open_client() as client:
        if follow:
            _follow(client, name)
        else:
            _print_study(client, client.study(name))


def cancel(name: StudyArgument) -> None:
    """End a study now; what its trials have reported so far is kept."""
    with open_client() as client:
        typer.echo(f"{name} is {client.cancel(name).state}.")


def export(
    name: StudyArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write; left out: standard output."),
    ] = None,
) -> None:
    """Write a study's trials as CSV, one line a run."""
    with open_client() as client:
        text = client.export(name)
    if output is None:
        typer.echo(text, nl=False)
        return
    with file_problems(f"write {output}"):
        output.write_text(text, encoding="utf-8", newline="")


def _follow(client: Client, name: str) -> None:
    try:
        study = follow_studies(client, [name], _console())[name]
    except KeyboardInterrupt as exc:
        typer.echo(f"\n{name} goes on. Watch it with: ridgeline show {name} --follow", err=True)
        raise typer.Exit(130) from exc
    _print_study(client, study)
    raise typer.Exit(0 if study.state is StudyState.COMPLETED else 1)


def _print_study(client: Client, study: Study) -> None:
    console = _console()
    for line in report.study_lines(study):
        typer.echo(report.printable(line))
    if study.trials.complete:
        trials = client.trials(study.name, state=TrialState.COMPLETE)
        best = report.best_trials(study, trials, limit=NUM_BEST_SHOWN)
        console.print(report.trials_table(study, best))
    if study.trials.fail:
        failed = next(client.trials(study.name, state=TrialState.FAIL))
        error = next((run.error for run in failed.runs if run.error), "")
        told = f": {report.printable(error)}" if error else ""
        typer.echo(f"trial {failed.number} was the first to fail, {failed.reason}{told}")


def _console() -> Console:
    """Wide where no terminal shows it, so that no column is cut."""
    is_terminal = sys.stdout is not None and sys.stdout.isatty()
    return report.plain_console(width=None if is_terminal else 200)
