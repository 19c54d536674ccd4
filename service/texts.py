"""Texts of people, made fit for where they are shown."""

from __future__ import annotations


def sendable(text: str) -> str:
    """`text` without what JSON or PostgreSQL cannot carry: lone surrogates and NUL."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\0")


def printable(text: str) -> str:
    """`text` on one line, without characters that a terminal would obey."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
