"""A module of one's own as a task: how it is described, and what it is built with."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from pydantic import ValidationError

from ridgeline import Domain, ModuleTask
from ridgeline.search.tasks.kinds import Classes, Image, Numbers, Tokens, Vector

WIDTH = Domain("int", "units of each block", low=1, high=100)
DECLARED: dict[str, Any] = {
    "description": "A network for tests.",
    "settings": {
        "width": WIDTH,
        "rate": Domain("float", "of something", low=0, high=1),
        "norm": Domain("choice", "after each layer", choices=("none", "batch")),
        "gated": Domain("flag", "whether there are gates"),
    },
    "defaults": {"width": 8, "rate": 0.5, "norm": "none", "gated": False, "learning_rate": 0.25},
}


def task_of(**changes: Any) -> ModuleTask:
    return ModuleTask("net", "tests.tasks.nowhere:Net", **{**DECLARED, **changes})


def settings_of(task: ModuleTask, **said: Any) -> Any:
    return task.settings.model_validate({"name": "net", "dataset": "digits", **said})


def test_a_study_says_its_settings_and_the_defaults_of_parameters() -> None:
    task = task_of()
    usual = settings_of(task)
    assert (usual.width, usual.rate, usual.norm, usual.gated) == (8, 0.5, "none", False)
    assert task.defaults(usual)["learning_rate"] == 0.25
    assert task.defaults(None)["learning_rate"] == 0.25
    assert task.defaults(settings_of(task, defaults={"l2": 0.5}))["learning_rate"] == 0.25
    assert task.defaults(settings_of(task, defaults={"learning_rate": 0.5}))["l2"] == 0
    assert settings_of(task, width=100, norm="batch", gated=True).width == 100
    assert task.description == "A network for tests."


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("width", value) for value in (0, 101, 1.5, "8")),
        *(("rate", value) for value in (2, "0.5")),
        ("norm", "group"),
        ("gated", 1),
        ("depth", 1),
    ],
)
def test_settings_outside_of_their_domains_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=field):
        settings_of(task_of(), **{field: value})


def test_a_parameter_of_a_task_keeps_its_domain() -> None:
    with pytest.raises(ValidationError, match="learning_rate"):
        settings_of(task_of(), defaults={"learning_rate": 0})
    assert (
        task_of().parameters["learning_rate"]
        == task_of(
            defaults={
                key: value for key, value in DECLARED["defaults"].items() if key != "learning_rate"
            }
        ).parameters["learning_rate"]
    )


@pytest.mark.parametrize(
    ("kind", "data", "told", "shape"),
    [
        ("vector", Vector(5), {"num_features": 5}, (5,)),
        ("vector", Image(2, 3, 4), {"num_features": 24}, (24,)),
        ("image", Image(2, 3, 4), {"shape": [2, 3, 4]}, (2, 3, 4)),
        ("tokens", Tokens(6, 50), {"length": 6, "vocabulary_size": 50}, (6,)),
    ],
)
def test_the_module_is_told_of_the_data(kind: Any, data: Any, told: Any, shape: Any) -> None:
    task = task_of(features=kind)
    own = {"width": 9, "rate": 0.5, "norm": "none", "gated": False}
    for targets in (Classes(3), Numbers(2)):
        assert task.misfit(settings_of(task), data, targets) is None
        model = task.model(settings_of(task, width=9), data, targets)
        assert json.loads(model.settings) == {**told, "num_outputs": targets.count, **own}
        assert (model.factory, model.shape) == ("tests.tasks.nowhere:Net", shape)
        assert model.num_ids == (50 if kind == "tokens" else None)


def test_a_study_says_how_files_are_read_where_that_suits_the_rows() -> None:
    image = task_of(features="image")
    settings = settings_of(image, images={"height": 8, "width": 6})
    assert image.data(settings).features(Image(1, 50, 70)) == Image(1, 8, 6)
    vector = task_of(features="vector")
    assert vector.data(settings_of(vector, target="rent")).reading.target == "rent"
    for kind, field in (("image", "target"), ("tokens", "images")):
        task = task_of(features=kind)
        with pytest.raises(ValidationError, match=field):
            settings_of(task, **{field: "x"})


def test_parameters_suit_the_rows() -> None:
    vector, image, tokens = (
        set(task_of(features=kind).parameters) for kind in ("vector", "image", "tokens")
    )
    assert {"learning_rate", "dropout", "max_norm", "l2", "epochs"} <= tokens
    assert vector - tokens == {"input_dropout"}
    assert {"shift", "mixup"} <= image - vector


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"features": "sound"}, "features are 'sound', not one of vector, image, tokens"),
        ({"targets": ()}, "targets are (), not some of classes, numbers"),
        ({"targets": ("ranks",)}, "targets are ('ranks',), not some of classes, numbers"),
        (
            {"settings": {"dataset": WIDTH}, "defaults": {}},
            "'dataset' cannot be the name of a setting",
        ),
        (
            {"settings": {"num_outputs": WIDTH}, "defaults": {}},
            "'num_outputs' cannot be the name of a setting",
        ),
        (
            {"settings": {"images": WIDTH}, "defaults": {}},
            "'images' cannot be the name of a setting",
        ),
        (
            {"settings": {"model_width": WIDTH}, "defaults": {}},
            "'model_width' cannot be the name of a setting",
        ),
        ({"settings": {"a-b": WIDTH}, "defaults": {}}, "'a-b' cannot be the name of a setting"),
        (
            {"settings": {"learning_rate": WIDTH}, "defaults": {}},
            "'learning_rate' cannot be the name of a setting",
        ),
        (
            {"settings": {"width": 5}, "defaults": {"width": 5}},
            "the setting width is a int, not a Domain",
        ),
        ({"settings": {"width": WIDTH}, "defaults": {}}, "the setting width has no default"),
        (
            {"settings": {"kind": Domain("choice", "of none")}, "defaults": {"kind": "a"}},
            "the setting kind is a choice that has no choices",
        ),
        (
            {"settings": {"width": WIDTH}, "defaults": {"width": 0}},
            "the default of width: 0 must be at least 1",
        ),
        (
            {"defaults": {**DECLARED["defaults"], "dropout": 1}},
            "the default of dropout: 1 must be below 1",
        ),
        (
            {"defaults": {**DECLARED["defaults"], "luck": 1}},
            "there is a default for luck, which has none",
        ),
        (
            {"defaults": {**DECLARED["defaults"], "epochs": 1}},
            "there is a default for epochs, which has none",
        ),
    ],
)
def test_what_cannot_be_used_is_named(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        task_of(**changes)


@pytest.mark.parametrize("place", ["net", "net:", ":Net", "my net:Net", "net.py:Net ", "a:b:c"])
def test_the_place_of_the_factory_is_a_module_and_a_name(place: str) -> None:
    with pytest.raises(ValueError, match="is no place of a factory"):
        ModuleTask("net", place, description="A network for tests.")


def test_a_class_is_given_by_its_place() -> None:
    with pytest.raises(ValueError, match="give its place as a text"):
        ModuleTask("net", dict, description="A network for tests.")  # type: ignore[arg-type]
