"""Commands for comparisons that the service has: look at them, change their course."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from ridgeline.search.comparison import ComparisonName
from ridgeline.service.cli import tables
from ridgeline.service.cli.compare import print_result, show_until_ended
from ridgeline.service.cli.environment import open_client
from ridgeline.service.cli.help_text import Command
from ridgeline.service.cli.output import ReportFileOption, report_format, write
from ridgeline.service.cli.problems import OneLineErrors, Problem, refused_options
from ridgeline.service.cli.studies import FollowOption
from ridgeline.service.cli.study_file import parse_changes
from ridgeline.service.client import Client
from ridgeline.service.comparison_resources import Comparison
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.texts import printable

_NAME = TypeAdapter[str](ComparisonName)

app = typer.Typer(cls=OneLineErrors, help="Look at comparisons, and change their course.")


def _possible_name(name: str) -> str:
    """The api would tell the pattern of names, and that is no help in finding a comparison."""
    try:
        return _NAME.validate_python(name)
    except ValidationError as exc:
        raise Problem(f"there is no comparison named {name!r}") from exc


NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The comparison's name.", callback=_possible_name)
]


def list_comparisons() -> None:
    """List the comparisons, newest first."""
    with open_client() as client:
        tables.console_of_stdout().print(tables.comparisons_table(client.comparisons()))


@app.command(cls=Command)
def show(name: NameArgument, follow: FollowOption = False) -> None:
    """Show a comparison: the state of each arm, and the result of those that are done."""
    with open_client() as client:
        if follow:
            show_until_ended(client, name)
        else:
            found = client.comparison(name)
            for line in tables.comparison_lines(found):
                typer.echo(printable(line))
            print_result(found)


@app.command(cls=Command)
def report(name: NameArgument, output: ReportFileOption = None) -> None:
    """Write a comparison's report: which arm is better, by what the data support."""
    with open_client() as client:
        text = client.comparison_report(name, format=report_format(output))
    write(text, output)


@app.command(cls=Command)
def pause(name: NameArgument) -> None:
    """Start no more runs of any arm; those that train go on to their end."""
    with open_client() as client:
        _tell(client.pause_comparison(name))


@app.command(cls=Command)
def resume(name: NameArgument) -> None:
    """Go on with a paused comparison; with one that has ended, train cancelled winners again."""
    with open_client() as client:
        found = client.resume_comparison(name)
    _tell(found)
    for arm in found.arms:
        if arm.state is StudyState.CANCELLED:
            typer.echo(printable(f"arm {arm.name} is {arm.state}: {arm.reason}"))


@app.command(cls=Command)
def cancel(name: NameArgument) -> None:
    """End a comparison now; what is known of arms that are done is kept."""
    with open_client() as client:
        _tell(client.cancel_comparison(name))


@app.command(cls=Command)
def extend(
    name: NameArgument,
    trials: Annotated[
        int | None, typer.Option(help="How many trials more, for each arm.", min=1)
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="How many seconds more, for each arm.", min=0)
    ] = None,
    follow: FollowOption = False,
) -> None:
    """Add trials or time to every arm; an arm with another winner then trains that one again."""
    with open_client() as client:
        with refused_options():
            found = client.extend_comparison(name, trials=trials, seconds=seconds)
        _follow_or_tell(client, found, follow)


@app.command(cls=Command)
def add(
    name: NameArgument,
    arm: Annotated[str, typer.Argument(metavar="ARM", help="The arm's name.")],
    adds: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="What it adds to the base, such as task.norm=batch; may be repeated; left out: "
            "that of the ready-made arm of its name.",
        ),
    ] = None,
    follow: FollowOption = False,
) -> None:
    """Add an arm, with the budget that the others have by now."""
    with open_client() as client:
        found = client.add_arms(name, {arm: parse_changes(adds or [])})
        _follow_or_tell(client, found, follow)


@app.command(cls=Command)
def delete(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="It shall really be gone.")] = False,
) -> None:
    """Delete a comparison that has ended, with all its studies, for good."""
    with open_client() as client:
        if not yes:
            num_arms = len(client.comparison(name).arms)
            raise Problem(
                f"{name} and the studies of its {num_arms} arms would be gone for good; "
                f"to delete them: ridgeline comparison delete {name} --yes",
                exit_code=2,
            )
        client.delete_comparison(name)
        typer.echo(f"{name} is deleted.")


def _tell(comparison: Comparison) -> None:
    typer.echo(f"{comparison.name} is {comparison.state}.")


def _follow_or_tell(client: Client, comparison: Comparison, follow: bool) -> None:
    if follow:
        show_until_ended(client, comparison.name)
    else:
        _tell(comparison)
        typer.echo(f"Watch it with: ridgeline comparison show {comparison.name} --follow")
