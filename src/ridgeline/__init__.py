"""Ridgeline: a hyperparameter-search service that never loses a trial.

A program needs `Client` and its errors, a package with tasks `ModuleTask` or `FunctionTask`,
`Domain` and `Pruned`.  They are imported when they are asked for: the engine,
`ridgeline.search.engine`, runs where nothing but torch and numpy is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ridgeline.search.tasks.domain import Domain
    from ridgeline.search.tasks.function import FunctionTask, Pruned
    from ridgeline.search.tasks.module_task import ModuleTask
    from ridgeline.service.client import ApiError, Client, ClientError, Unreachable

__all__ = [
    "ApiError",
    "Client",
    "ClientError",
    "Domain",
    "FunctionTask",
    "ModuleTask",
    "Pruned",
    "Unreachable",
]

_MODULES = {
    "Domain": "ridgeline.search.tasks.domain",
    "FunctionTask": "ridgeline.search.tasks.function",
    "ModuleTask": "ridgeline.search.tasks.module_task",
    "Pruned": "ridgeline.search.tasks.function",
}
"""Where names are that do not come with the client."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES.get(name, "ridgeline.service.client")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
