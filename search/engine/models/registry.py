"""The models by name, so that a process can be told of one in JSON.  Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ridgeline.search.engine.models.base import Model
from ridgeline.search.engine.models.mlp import Mlp
from ridgeline.search.engine.models.module import ModuleModel

MODELS: dict[str, type[Model]] = {model.kind: model for model in (Mlp, ModuleModel)}


def model_from_dict(data: Mapping[str, Any]) -> Model:
    """The model that `Model.as_dict` wrote down.

    Raises:
        ValueError: there is no such model, or it is not made of these data.
    """
    fields = dict(data)
    kind = fields.pop("kind", None)
    if kind not in MODELS:
        raise ValueError(f"there is no model {kind!r}; known are {', '.join(MODELS)}")
    try:
        return MODELS[kind](**fields)
    except TypeError as exc:
        raise ValueError(f"not a model {kind}: {exc}") from exc
