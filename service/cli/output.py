"""Where commands write texts: a file, or standard output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ridgeline.service.cli.problems import file_problems
from ridgeline.service.client import ReportFormat

ReportFileOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="The file to write, Markdown where its name ends in .md, else HTML; left out: "
        "Markdown on standard output.",
    ),
]


def report_format(output: Path | None) -> ReportFormat:
    """The format that a report has in a file of that name."""
    return "md" if output is None or output.suffix.lower() == ".md" else "html"


def write(text: str, output: Path | None) -> None:
    """Write a text as it is.

    Raises:
        Problem: the file cannot be written.
    """
    if output is None:
        typer.echo(text, nl=False)
        return
    with file_problems(f"write {output}"):
        output.write_text(text, encoding="utf-8", newline="")
