"""`ridgeline data`: the data sets of this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from ridgeline.service.cli.environment import load_settings
from ridgeline.service.cli.help_text import Command
from ridgeline.service.cli.options import DataRootOption
from ridgeline.service.cli.problems import OneLineErrors, Problem, file_problems
from ridgeline.service.downloads import SOURCES, DownloadError, download

app = typer.Typer(cls=OneLineErrors, help="Bring data sets to this machine.")


@app.callback()
def _root() -> None:
    """Without it typer would take the only command for the group itself."""


@app.command("download", cls=Command)
def download_(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="mnist, fashion-mnist or cifar-10.")
    ],
    data_root: DataRootOption = None,
) -> None:
    """Bring well-known data sets into the data root, each as a folder of its name.

    Files are compared with checksums that are known here.  The same command goes on where it was
    interrupted.
    """
    for name in names:
        if name not in SOURCES:
            known = ", ".join(SOURCES)
            raise Problem(f"{name!r} cannot be downloaded, only {known}", exit_code=2)
    root = load_settings(data_root=data_root).data_root
    if root is None:
        raise Problem("say where to: --data-root or RIDGELINE_DATA_ROOT", exit_code=2)
    for name in names:
        try:
            with file_problems(f"write to {root}"):
                is_new = download(name, SOURCES[name], root, tell=typer.echo)
        except DownloadError as exc:
            raise Problem(f"{name}: {exc}") from exc
        typer.echo(f"{name} is in {root / name}" + ("." if is_new else " already."))
