"""The command line as a whole: which commands there are."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from ridgeline.service.cli import comparisons, data, serving, studies, task, tokens
from ridgeline.service.cli.compare import compare
from ridgeline.service.cli.doctor import doctor
from ridgeline.service.cli.help_text import Command
from ridgeline.service.cli.importing import import_
from ridgeline.service.cli.problems import OneLineErrors
from ridgeline.service.cli.up import up

app = typer.Typer(
    cls=OneLineErrors,
    help="Ridgeline searches hyperparameters: post a study, workers train its trials.",
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,  # they show local variables, and so tokens
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and end.", is_eager=True)
    ] = False,
) -> None:
    if version:
        typer.echo(f"ridgeline {metadata.version('ridgeline')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command(cls=Command)(up)
app.command(cls=Command)(serving.serve)
app.command(cls=Command)(serving.worker)
app.command(cls=Command)(serving.migrate)
app.command(cls=Command)(doctor)
app.add_typer(tokens.app, name="token")
app.add_typer(task.app, name="task")
app.add_typer(data.app, name="data")
app.command(cls=Command)(studies.run)
app.command("import", cls=Command)(import_)
app.command(cls=Command)(compare)
app.command("comparisons", cls=Command)(comparisons.list_comparisons)
app.add_typer(comparisons.app, name="comparison")
app.command("studies", cls=Command)(studies.list_studies)
app.command(cls=Command)(studies.show)
app.command(cls=Command)(studies.pause)
app.command(cls=Command)(studies.resume)
app.command(cls=Command)(studies.stop)
app.command(cls=Command)(studies.cancel)
app.command(cls=Command)(studies.archive)
app.command(cls=Command)(studies.unarchive)
app.command(cls=Command)(studies.extend)
app.command(cls=Command)(studies.retry)
app.command(cls=Command)(studies.explain)
app.command(cls=Command)(studies.enqueue)
app.command(cls=Command)(studies.clone)
app.command(cls=Command)(studies.delete)
app.command(cls=Command)(studies.export)
app.command(cls=Command)(studies.report)
