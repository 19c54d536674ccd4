"""Tasks that are a module of torch of a person's own, which workers train in packs.

The author of one writes an ordinary `nn.Module`, and an object of `ModuleTask` that an entry point
names.  The task says by its name where the module is: the api imports the task, and has no torch.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, create_model

from ridgeline.search.fields import ParameterName, SpecPart, fits
from ridgeline.search.ranges import Value
from ridgeline.search.tasks.domain import Domain
from ridgeline.search.tasks.kinds import Features, FeaturesKind, Targets, TargetsKind, Tokens
from ridgeline.search.tasks.model_task import (
    METRICS,
    DatasetField,
    ImagesField,
    LabelField,
    ModelSettings,
    ModelTask,
    TargetField,
    WeightsField,
    metrics_of_all,
)
from ridgeline.search.tasks.parameters import (
    Augmenting,
    Dropping,
    DroppingInputs,
    Penalising,
    Regularising,
    Stepping,
    Updating,
    parameters_of,
)
from ridgeline.search.tasks.settings import Split

if TYPE_CHECKING:
    from ridgeline.search.engine.models.module import ModuleModel

_SHARED: tuple[type[SpecPart], ...] = (Regularising, Updating, Dropping, Penalising, Stepping)

_GROUPS: Mapping[FeaturesKind, tuple[type[SpecPart], ...]] = {
    "vector": (DroppingInputs, *_SHARED),
    "image": (Augmenting, DroppingInputs, *_SHARED),
    "tokens": _SHARED,
}
"""The parameters that suit such rows."""

_TAKEN: Mapping[FeaturesKind, frozenset[FeaturesKind]] = {
    "vector": frozenset({"vector", "image"}),  # an image is its pixels in a row
    "image": frozenset({"image"}),
    "tokens": frozenset({"tokens"}),
}
"""The kinds of data that can be given to a module as such rows."""

_TOLD: Mapping[FeaturesKind, tuple[str, ...]] = {
    "vector": ("num_features", "num_outputs"),
    "image": ("shape", "num_outputs"),
    "tokens": ("length", "vocabulary_size", "num_outputs"),
}
"""The arguments by which a module is told of the data."""

_READ: Mapping[FeaturesKind, Mapping[str, Any]] = {
    "vector": {"label": LabelField, "target": TargetField, "images": ImagesField},
    "image": {"images": ImagesField},
    "tokens": {},
}
"""Settings that say how the files of such data are read."""

_EXAMPLES: Mapping[tuple[FeaturesKind, TargetsKind], str] = {
    ("vector", "classes"): "digits",
    ("image", "classes"): "digits",
    ("vector", "numbers"): "diabetes",
}
"""Data sets that everybody has."""

_USUAL = "The value of each parameter that the study's space leaves out."
_PLACE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


class ModuleTask(ModelTask[Any]):
    """A task whose runs train an `nn.Module`.

    The module is given float rows [rows, num_features] or [rows, channels, height, width], or
    tokens [rows, length] of whole numbers, and returns [rows, num_outputs]: scores of the classes
    before any softmax, or numbers.

    Its parameters are those of the built-in tasks: of the optimizer, penalties and regularisers,
    and the augmentation of images.  `dropout` takes the place of every probability above 0 in the
    module's calls of dropout.

    Args:
        name: of the task, and of its entry point.
        factory: where the module's class is, or a function that builds it, such as
            "my_package.networks:Residual".  It is called with `settings` and by what tells of the
            data, all by keyword: `num_outputs`, with `num_features` of vectors, `shape` of images,
            a list [channels, height, width], or `length` and `vocabulary_size` of tokens.
        description: of the task, for people.
        features: what a row is.  Images are given to a module for vectors as well, flat.
        targets: what can be learned.
        settings: what a study may say of the module besides, by name.
        defaults: of all settings, and of those parameters whose usual one does not suit.

    Raises:
        ValueError: one of these cannot be used.
    """

    def __init__(
        self,
        name: str,
        factory: str,
        *,
        description: str,
        features: FeaturesKind = "vector",
        targets: tuple[TargetsKind, ...] = ("classes", "numbers"),
        settings: Mapping[str, Domain] | None = None,
        defaults: Mapping[str, Value] | None = None,
    ) -> None:
        settings, defaults = dict(settings or {}), dict(defaults or {})
        if problems := list(_problems(factory, features, targets, settings, defaults)):
            raise ValueError("; ".join(problems))
        usual = _made(f"{name}Defaults", _USUAL, _GROUPS[features], {})
        changed = {key: value for key, value in defaults.items() if key not in settings}
        if nameless := [key for key in changed if key not in usual.model_fields]:
            raise ValueError(f"there is a default for {nameless[0]}, which has none")
        if problems := list(_misfits({**parameters_of(usual), **settings}, defaults)):
            raise ValueError("; ".join(problems))
        fields = {
            key: (_annotated(usual.model_fields[key]), value) for key, value in changed.items()
        }
        own = _made(f"{name}Defaults", _USUAL, (usual,), fields)
        self.name = name
        self.factory = factory
        self.features = _TAKEN[features]
        self.targets = frozenset(targets)
        self.parameters = parameters_of(own)
        self.metrics = metrics_of_all(targets)
        self.example = MappingProxyType(
            {"name": name, "dataset": _EXAMPLES.get((features, targets[0]), "my-data")}
        )
        self._kind: FeaturesKind = features
        self._own = tuple(settings)
        self.settings = _made(
            f"{name}Settings",
            description,
            (ModelSettings,),
            {
                "name": (Literal[name], ...),
                "dataset": (DatasetField, ...),
                **{key: (field, None) for key, field in _READ[features].items()},
                **{key: (_type(domain), defaults[key]) for key, domain in settings.items()},
                "class_weights": (WeightsField, None),
                "split": (Split, Split()),
                "defaults": (own, own()),
            },
        )

    def model(self, settings: Any, features: Features, targets: Targets) -> ModuleModel:
        from ridgeline.search.engine.models.module import ModuleModel

        shape = (math.prod(features.shape),) if self._kind == "vector" else features.shape
        num_ids = features.vocabulary_size if isinstance(features, Tokens) else None
        told = {
            "num_features": math.prod(shape),
            "shape": shape,
            "length": shape[0],
            "vocabulary_size": num_ids,
            "num_outputs": targets.count,
        }
        arguments = {key: told[key] for key in _TOLD[self._kind]}
        arguments |= {key: getattr(settings, key) for key in self._own}
        return ModuleModel(
            self.factory, json.dumps(arguments, sort_keys=True), shape, targets.count, num_ids
        )


def _problems(
    factory: object,
    features: str,
    targets: tuple[str, ...],
    settings: Mapping[str, Domain],
    defaults: Mapping[str, Value],
) -> Iterator[str]:
    if not isinstance(factory, str):
        yield (
            f"the factory is a {type(factory).__name__}: give its place as a text, such as "
            '"my_package.networks:Residual", so that the api need not import torch'
        )
    elif not _PLACE.fullmatch(factory):
        yield f'{factory!r} is no place of a factory, such as "my_package.networks:Residual"'
    if features not in _TAKEN:
        yield f"features are {features!r}, not one of {', '.join(_TAKEN)}"
    if not targets or set(targets) - set(METRICS):
        yield f"targets are {targets!r}, not some of {', '.join(METRICS)}"
    taken = {"name", "dataset", "class_weights", "split", "defaults", "epochs"}
    taken |= {name for group in (*_TOLD.values(), *_READ.values()) for name in group}
    taken |= {name for group in _GROUPS["image"] for name in group.model_fields}
    for name, domain in settings.items():
        is_name = fits(ParameterName, name) and name.isidentifier()
        # pydantic keeps names that begin so for itself
        if not is_name or name.startswith("model_") or name in taken:
            yield f"{name!r} cannot be the name of a setting"
        elif not isinstance(domain, Domain):
            yield f"the setting {name} is a {type(domain).__name__}, not a Domain"
        elif domain.kind == "choice" and not domain.choices:
            yield f"the setting {name} is a choice that has no choices"
        elif name not in defaults:
            yield f"the setting {name} has no default"


def _misfits(domains: Mapping[str, Domain], defaults: Mapping[str, Value]) -> Iterator[str]:
    for name, value in defaults.items():
        if (reason := domains[name].problem_of_default(value)) is not None:
            yield f"the default of {name}: {reason}"


def _made(
    name: str, doc: str, bases: tuple[type[SpecPart], ...], fields: Mapping[str, Any]
) -> type[Any]:
    """A class of pydantic; each field is given by its annotation and its default."""
    made: type[Any] = create_model(name, __base__=bases, __doc__=doc, **fields)
    return made


def _type(domain: Domain) -> Any:
    """The type of a setting that is to lie in the domain."""
    of_kind: dict[str, Any] = {"float": float, "int": int, "flag": bool}
    kind = Literal[domain.choices] if domain.kind == "choice" else of_kind[domain.kind]
    return Annotated[kind, domain, Field(description=domain.description)]


def _annotated(field: Any) -> Any:
    """The annotation that a field was made of, besides its default."""
    return Annotated[(field.annotation, *field.metadata)]
