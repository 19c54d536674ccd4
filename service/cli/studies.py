"""Commands of people who search: post studies, look at them, change their course."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from ridgeline.search.spec import StudyName
from ridgeline.service.cli import tables
from ridgeline.service.cli.environment import open_client
from ridgeline.service.cli.explaining import explained
from ridgeline.service.cli.follow import follow as follow_studies
from ridgeline.service.cli.output import ReportFileOption, report_format, write
from ridgeline.service.cli.problems import Problem, refused_options
from ridgeline.service.cli.study_file import (
    load_configs,
    parse_changes,
    parse_config,
    post_study,
)
from ridgeline.service.client import Client
from ridgeline.service.lifecycle import OPEN_STUDY, FailReason, StudyState, TrialState
from ridgeline.service.resources import Study
from ridgeline.service.texts import printable

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
    name: Annotated[
        str | None,
        typer.Option(help="The study's name; left out: the one in the file.", show_default=False),
    ] = None,
    follow: FollowOption = False,
) -> None:
    """Post a study.

    With --follow, the exit status is 0 when the study is COMPLETED and 1 when it is FAILED or
    CANCELLED; Ctrl-C leaves the study running.
    """
    with open_client() as client:
        study = post_study(client, file, name=name)
        _follow_or_tell(client, study, follow)


def list_studies(
    all_studies: Annotated[
        bool, typer.Option("--all", help="Those that are archived too.")
    ] = False,
) -> None:
    """List the studies, newest first."""
    with open_client() as client:
        tables.console_of_stdout().print(tables.studies_table(client.studies(archived=all_studies)))


def show(name: StudyArgument, follow: FollowOption = False) -> None:
    """Show a study: its state, why it waits, its best trials and what they reach on test."""
    with open_client() as client:
        if follow:
            _follow(client, name)
        else:
            _print_study(client, client.study(name))


def pause(name: StudyArgument) -> None:
    """Start no more runs of a study; those that train go on to their end."""
    with open_client() as client:
        _tell(client.pause(name))


def resume(name: StudyArgument) -> None:
    """Go on with a paused study."""
    with open_client() as client:
        _tell(client.resume(name))


def stop(name: StudyArgument) -> None:
    """Create no more trials of a study; the running ones finish."""
    with open_client() as client:
        _tell(client.stop(name))


def cancel(name: StudyArgument) -> None:
    """End a study now; what its trials have reported so far is kept."""
    with open_client() as client:
        _tell(client.cancel(name))


def archive(name: StudyArgument) -> None:
    """Leave a study that has ended out of `ridgeline studies`; nothing else of it changes."""
    with open_client() as client:
        client.archive(name)
        typer.echo(f"{name} is archived; ridgeline studies --all shows it.")


def unarchive(name: StudyArgument) -> None:
    """Show an archived study in `ridgeline studies` again."""
    with open_client() as client:
        client.unarchive(name)
        typer.echo(f"{name} is archived no more.")


def extend(
    name: StudyArgument,
    trials: Annotated[
        int | None, typer.Option(help="How many trials more.", show_default=False, min=1)
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="How many seconds more.", show_default=False, min=0)
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="How the space grows, such as space.learning_rate.high=0.3; may be repeated.",
            show_default=False,
        ),
    ] = None,
    follow: FollowOption = False,
) -> None:
    """Add trials, time or a larger space to a study; one that has ended is queued again."""
    with open_client() as client:
        given = parse_changes(changes or [])
        for field in given.keys() - {"space"}:
            reason = "only the space can be set here"
            raise Problem(f"--set {field}: {reason}; clone the study to change more", exit_code=2)
        with refused_options():
            study = client.extend(name, trials=trials, seconds=seconds, space=given.get("space"))
        _follow_or_tell(client, study, follow)


def retry(
    name: StudyArgument,
    reason: Annotated[
        list[FailReason] | None,
        typer.Option(
            help="Why they failed; may be repeated; left out: all but diverged.",
            show_default=False,
        ),
    ] = None,
    follow: FollowOption = False,
) -> None:
    """Try a study's failed trials again, as new trials with the same configurations."""
    with open_client() as client:
        _follow_or_tell(client, client.retry(name, reasons=reason or None), follow)


def explain(
    name: StudyArgument,
    number: Annotated[int, typer.Argument(metavar="TRIAL", help="The trial's number.")],
) -> None:
    """Say why a trial has its configuration, and what its sampler expected of it."""
    with open_client() as client:
        explanation = client.explain(name, number)
    for line in explained(explanation):
        typer.echo(printable(line))
    if explanation.nearest:
        tables.console_of_stdout().print(tables.known_trials_table(explanation))


def enqueue(
    name: StudyArgument,
    values: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PARAMETER=VALUE",
            help="A value to try; may be repeated; the sampler chooses what is left out.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="A YAML list of configurations, as `ridgeline import --best` writes it.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Try a configuration next, before the sampler is asked for whole ones."""
    if file is not None and values:
        raise Problem("--file: the values are in the file, so leave --set out", exit_code=2)
    with open_client() as client:
        configs = [parse_config(values or [])] if file is None else load_configs(file)
        trials = client.enqueue(name, configs)
    for trial in trials:
        typer.echo(f"trial {trial.number} of {name}: {printable(tables.config_text(trial))}")


def clone(
    name: StudyArgument,
    new_name: Annotated[str, typer.Argument(metavar="NEW_NAME", help="The new study's name.")],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="What differs, such as budget.trials=50; may be repeated.",
            show_default=False,
        ),
    ] = None,
    follow: FollowOption = False,
) -> None:
    """Post a study like another one, without its trials."""
    with open_client() as client:
        given = parse_changes(changes or [])
        if "name" in given:
            raise Problem(f"--set name: the name is {new_name}, as given before it", exit_code=2)
        study = client.clone(name, new_name, given)
        _follow_or_tell(client, study, follow)


def delete(
    name: StudyArgument,
    yes: Annotated[bool, typer.Option("--yes", help="It shall really be gone.")] = False,
) -> None:
    """Delete a study that has ended, with all its trials, for good."""
    with open_client() as client:
        if not yes:
            num_trials = client.study(name).num_trials
            raise Problem(
                f"{name} and its {num_trials} trials would be gone for good; "
                f"to delete them: ridgeline delete {name} --yes",
                exit_code=2,
            )
        client.delete(name)
        typer.echo(f"{name} is deleted.")


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
    write(text, output)


def report(name: StudyArgument, output: ReportFileOption = None) -> None:
    """Write a study's report: what was asked, what came of it, in figures and words."""
    with open_client() as client:
        text = client.study_report(name, format=report_format(output))
    write(text, output)


def _tell(study: Study) -> None:
    stopping = ", and stops once its running trials have ended" if study.stopping else ""
    is_open = study.state in OPEN_STUDY
    typer.echo(f"{study.name} is {study.state}{stopping if is_open else ''}.")


def _follow_or_tell(client: Client, study: Study, follow: bool) -> None:
    """Of a study that has just been given something to do."""
    if follow:
        _follow(client, study.name)
    elif study.state in OPEN_STUDY:
        state = "queued" if study.state is StudyState.QUEUED else study.state
        typer.echo(f"{study.name} is {state}, {study.num_trials} trials.")
        typer.echo(f"Watch it with: ridgeline show {study.name} --follow")
    else:
        typer.echo(f"{study.name} is {study.state} still: it has nothing more to do.")


def _follow(client: Client, name: str) -> None:
    try:
        study = follow_studies(client, [name], tables.console_of_stdout())[name]
    except KeyboardInterrupt as exc:
        typer.echo(f"\n{name} goes on. Watch it with: ridgeline show {name} --follow", err=True)
        raise typer.Exit(130) from exc
    _print_study(client, study)
    raise typer.Exit(0 if study.state is StudyState.COMPLETED else 1)


def _print_study(client: Client, study: Study) -> None:
    console = tables.console_of_stdout()
    for line in tables.study_lines(study):
        typer.echo(printable(line))
    if study.trials.complete:
        trials = client.trials(study.name, state=TrialState.COMPLETE)
        best = tables.best_trials(study, trials, limit=NUM_BEST_SHOWN)
        console.print(tables.trials_table(study, best))
    if study.trials.fail:
        failed = next(client.trials(study.name, state=TrialState.FAIL))
        error = next((run.error for run in failed.runs if run.error), "")
        told = f": {printable(error)}" if error else ""
        typer.echo(f"trial {failed.number} was the first to fail, {failed.reason}{told}")
