"""Texts of people, made fit for where they are shown."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` on one line, without characters that a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
