"""What `--help` shows, corrected in two places where typer shows it badly."""

from __future__ import annotations

import inspect
from typing import Any

from typer.core import TyperCommand


class Command(TyperCommand):
    """A command whose help has whole paragraphs, and flags without a type behind them."""

    def __init__(self, *args: Any, help: str | None = None, **extra: Any) -> None:
        # typer joins the lines of the first paragraph only.
        paragraphs = inspect.cleandoc(help or "").split("\n\n")
        text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        super().__init__(*args, help=text, **extra)

    def get_params(self, ctx: Any) -> list[Any]:
        return without_types_of_flags(super().get_params(ctx))


def without_types_of_flags(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters
