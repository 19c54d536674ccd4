"""A package of tasks that are the modules of `odd_networks`."""

from __future__ import annotations

from ridgeline import ModuleTask

_PLACES = {
    "linear-module": "Linear",
    "raises-at-build": "RaisesAtBuild",
    "raises-in-forward": "RaisesInForward",
    "exits": "Exits",
    "cancels": "Cancels",
    "raises-pages": "RaisesPages",
    "wrong-shape": "WrongShape",
    "nan": "Nan",
    "shuffles": "Shuffles",
    "by-data": "ByData",
    "hangs-at-build": "HangsAtBuild",
    "hangs-in-training": "HangsInTraining",
    "prints": "Prints",
    "forks": "Forks",
    "parameterless": "Parameterless",
    "no-module": "no_module",
    "missing-module": "Missing",
}

TASKS = {
    name: ModuleTask(name, f"tests.worker.odd_networks:{place}", description="A module for tests.")
    for name, place in _PLACES.items()
}
globals().update({name.replace("-", "_"): task for name, task in TASKS.items()})

ENTRY_POINTS = {name: f"{__name__}:{name.replace('-', '_')}" for name in TASKS}
