"""`ridgeline doctor`: whether a database is as it should be, while the service runs or not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ridgeline.service.cli.environment import load_settings, open_current_database
from ridgeline.service.texts import printable


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
            for name in doctor.repair(store):
                typer.echo(f"study {name}: its copy in Optuna's tables was made anew.")
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
