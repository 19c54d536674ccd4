"""The command `ridgeline`; docs/cli.md describes every command and option."""

from __future__ import annotations

from ridgeline.service.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line and leave with its exit status."""
    app(prog_name="ridgeline")
