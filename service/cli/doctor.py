"""`ridgeline doctor`: whether a database is as it should be, while the service runs or not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ridgeline.service.cli.environment import load_settings, open_current_database
from ridgeline.service.texts import printable

if TYPE_CHECKING:
    from ridgeline.service.doctor import Repair


def doctor(
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Make the copies in Optuna's tables anew that are wrong."),
    ] = False,
) -> None:
    """Check the database and the files that `serve` would use, and who may change its folders.

    It may run while the service does. The exit status is 0 where all is well, and 1 where
    something is wrong.
    """
    from ridgeline.service import doctor, wiring

    settings = load_settings()
    token_dir = os.environ.get("RIDGELINE_TOKEN_DIR")
    num_found = 0
    console = Console(stderr=True)
    with open_current_database(settings) as store, console.status("") as status:
        if repair:
            for done in doctor.repair(store, settings):
                typer.echo(printable(_in_words(done)))
        for finding in doctor.examine(
            store,
            wiring.open_artifacts(settings),
            settings,
            Path(token_dir) if token_dir else None,
            lambda what: status.update(printable(what)),
        ):
            num_found += 1
            typer.echo(f"{finding.check}: {printable(finding.wrong)}.\n  {finding.todo}")
    if num_found:
        typer.echo(f"{num_found} {'problem' if num_found == 1 else 'problems'} found.")
        raise typer.Exit(1)
    typer.echo("All is well.")


def _in_words(done: Repair) -> str:
    copy = f"study {done.study}: its copy in Optuna's tables"
    if not done.obstacles:
        return f"{copy} was made anew."
    return (
        f"{copy} differs and is left as it is, since it may hold what the study has lost: "
        f"{done.obstacles[0].wrong}."
    )
