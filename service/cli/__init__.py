"""The command `ridgeline`; docs/cli.md describes every command and option."""

from __future__ import annotations

from ridgeline.service.interrupts import interruptible


def main() -> None:
    """Run the command line and leave with its exit status."""
    with interruptible():
        from ridgeline.service.cli.app import app
    app(prog_name="ridgeline")
