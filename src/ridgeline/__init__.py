"""Ridgeline: a hyperparameter-search service that never loses a trial.

A program needs `Client` and its errors.  They are imported when they are asked for: the engine,
`ridgeline.search.engine`, runs where nothing but torch and numpy is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ridgeline.service.client import ApiError, Client, ClientError, Unreachable

__all__ = ["ApiError", "Client", "ClientError", "Unreachable"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ridgeline.service import client

    return getattr(client, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
