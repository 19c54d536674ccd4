"""Comparing ways to train: the service tunes each and trains the winners again; here is the table.

All that is known stands in the service.  So the same command goes on where it was interrupted, and
shows its result again once all is done.
"""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import typer

from ridgeline.search.comparison import ComparisonSpec, studies_of
from ridgeline.search.spec import StudySpec
from ridgeline.service.cli import tables
from ridgeline.service.cli.environment import open_client
from ridgeline.service.cli.follow import follow_comparison
from ridgeline.service.cli.problems import Problem
from ridgeline.service.cli.study_file import ComparisonFile, load_comparison
from ridgeline.service.client import ApiError, Client
from ridgeline.service.comparison_resources import Comparison
from ridgeline.service.lifecycle import StudyState
from ridgeline.service.texts import printable


def compare(
    file: Annotated[
        Path, typer.Argument(metavar="COMPARISON.YAML", help="The comparison's description.")
    ],
) -> None:
    """Compare ways to train: tune each, train the winners again with fresh seeds.

    Posts the comparison, unless it is there already, and follows it until it has ended.  Ctrl-C
    leaves it running; the same command goes on from there.
    """
    described = load_comparison(file)
    with open_client() as client:
        _ensure(client, described)
        show_until_ended(client, described.spec.name)


def show_until_ended(client: Client, name: str) -> None:
    """Follow a comparison, and print its result.

    Raises:
        Problem: it was cancelled, or has failed.
    """
    try:
        found = follow_comparison(client, name, tables.console_of_stdout())
    except KeyboardInterrupt as exc:
        again = f"ridgeline comparison show {name} --follow"
        typer.echo(f"\n{name} goes on. Watch it with: {again}", err=True)
        raise typer.Exit(130) from exc
    if found.state is StudyState.COMPLETED:
        print_result(found)
    else:
        raise Problem(f"{name}: {found.reason}" if found.reason else f"{name} is {found.state}")


def print_result(comparison: Comparison) -> None:
    """The table of the arms that are done, which others have no winner, and what each pair says."""
    if comparison.result is None:
        return
    console = tables.console_of_stdout()
    console.print(tables.arms_table(comparison.result))
    if comparison.spec.trains_on_validation:
        typer.echo("Winners were trained again on training and validation rows.\n")
    if any(arm.measures for arm in comparison.result.arms):
        console.print(tables.measures_table(comparison.result))
    for arm in comparison.arms:
        if arm.state in (StudyState.FAILED, StudyState.CANCELLED):
            typer.echo(printable(f"{arm.name} has no winner: {arm.reason}."))
    for difference in comparison.result.differences:
        typer.echo(difference.sentence)


def _ensure(client: Client, described: ComparisonFile) -> None:
    """Post a comparison, unless it is there already: who may only read sees what has ended, too.

    Raises:
        Problem: the service refuses it, or there is another one of that name.
    """
    spec = described.spec
    try:
        there = client.comparison(spec.name)
    except ApiError as exc:
        if exc.status != HTTPStatus.NOT_FOUND:
            raise
        try:
            there = client.create_comparison(spec)
        except ApiError as refused:
            there = _there_after(refused, client, described)
    if (difference := _what_differs(there.spec, spec)) is not None:
        raise Problem(
            f"there is another comparison named {spec.name} already: give this one another name, "
            f"or delete that one with `ridgeline comparison delete {spec.name}`; it has "
            f"{difference}"
        )


def _there_after(refused: ApiError, client: Client, described: ComparisonFile) -> Comparison:
    """The comparison that the same command, given twice at once, has posted before this one."""
    if refused.status == HTTPStatus.UNPROCESSABLE_ENTITY and refused.problems:
        raise described.refused(refused.problems) from refused
    if refused.status != HTTPStatus.CONFLICT:
        raise refused
    try:
        return client.comparison(described.spec.name)
    except ApiError as exc:
        if exc.status != HTTPStatus.NOT_FOUND:
            raise
        raise Problem(refused.detail) from refused  # one of its studies cannot have its name


def _what_differs(one: ComparisonSpec, other: ComparisonSpec) -> str | None:
    """What one has that the other has not, in words; the budget first, which may have grown.

    None where they come to the same studies, however they are written.
    """
    mine, its = studies_of(one), studies_of(other)
    if mine.keys() != its.keys():
        return f"the arms {', '.join(mine)}"
    for arm, study in mine.items():
        for field in ("budget", *StudySpec.model_fields):
            if getattr(study, field) != getattr(its[arm], field):
                return f"another {field} in the arm {arm}"
    if one.train_on != other.train_on:
        return f"train_on {one.train_on}"
    return None if one.replicates == other.replicates else f"{one.replicates} replicates"
