"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PortOption = Annotated[
    int | None,
    typer.Option(help="Port of the api; 0 takes a free one.", show_default=False, min=0, max=65535),
]
DataRootOption = Annotated[
    Path | None,
    typer.Option(help="Folder whose sub-folders are data sets.", show_default=False),
]
DieWithParentOption = Annotated[bool, typer.Option("--die-with-parent", hidden=True)]
