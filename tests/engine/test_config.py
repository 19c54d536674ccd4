from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from ridgeline.search.engine import Mlp, ProgramIdentity, RunConfig, processor
from tests.engine.sets import config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("seed", 2**63),
        ("seed", 1.0),
        ("seed", True),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("learning_rate", "0.1"),
        ("batch_size", 0),
        ("epochs", 0),
        ("l1", -0.1),
        ("l2", -0.1),
        ("weight_decay", -0.1),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("momentum", 1.0),
        ("nesterov", 1),
        ("optimizer", "lion"),
        ("schedule", "linear"),
        ("warmup", 1.0),
        ("warmup", -0.1),
        ("clip_norm", -1.0),
        ("clip_norm", float("inf")),
        ("max_norm", -1.0),
        ("max_norm", float("inf")),
        ("input_dropout", 1.0),
        ("input_dropout", -0.1),
        ("label_smoothing", 1.0),
        ("label_smoothing", "0.1"),
        ("gradient_noise", -0.1),
        ("gradient_noise", float("nan")),
        ("shift", -1.0),
        ("flip", 1.1),
        ("rotation", 181.0),
        ("cutout", -0.1),
        ("brightness", float("inf")),
        ("contrast", 1.1),
        ("input_noise", float("nan")),
        ("mixup", 17.0),
        ("penalize", "none"),
        ("lambda_convention", "mean"),
        ("l1_update", "soft"),
        ("patience", 0),
        ("min_delta", -1.0),
        ("loss", "hinge"),
        ("monitor", "train_loss"),
        ("direction", "up"),
    ],
)
def test_an_illegal_value_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{field} must"):
        config(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_features", 0),
        ("hidden", (8, 0)),
        ("num_outputs", 0),
        ("activation", "gelu"),
        ("batch_norm", 1),
    ],
)
def test_an_illegal_shape_is_refused_by_name(field: str, value: Any) -> None:
    settings: dict[str, Any] = {"num_features": 4, "hidden": (8,), "num_outputs": 3, field: value}
    with pytest.raises(ValueError, match=f"^{field} must"):
        Mlp(**settings)


def test_a_config_survives_json() -> None:
    one = config(
        seed=2**63 - 1,
        patience=3,
        l1=1e-300,
        schedule="cosine",
        nesterov=True,
        class_weights=(0.5, 2.0),
    )
    assert RunConfig(**json.loads(json.dumps(one.as_dict()))) == one


def test_a_program_identity_survives_text() -> None:
    identity = ProgramIdentity.current("native", 32, torch.device("cpu"), torch.float32, threads=3)
    assert ProgramIdentity.parse(str(identity)) == identity
    assert (identity.threads, identity.denormals) == (3, "flushed")
    assert str(torch.__version__) in str(identity)
    assert identity.device_kind == processor.kind()


def test_an_identity_names_the_regularisers_of_a_compiled_program() -> None:
    text = "compiled/width=8/torch=2.13.0/x86_64/float32/threads=1/denormals=flushed"
    without = ProgramIdentity.parse(text)
    identity = replace(without, regularisers=("max_norm", "gradient_noise"))
    assert (str(without), str(identity)) == (text, f"{text}/regularisers=9")
    later = replace(identity, numerics=2)
    assert str(later) == f"{text}/regularisers=9/numerics=2"
    assert (ProgramIdentity.parse(str(identity)), ProgramIdentity.parse(str(later))) == (
        identity, later,
    )  # fmt: skip


def test_an_identity_names_the_version_of_the_numerics_from_the_second_on() -> None:
    text = "native/width=8/torch=2.13.0/x86_64/float32/threads=1/denormals=flushed"
    first = ProgramIdentity.parse(text)
    second = ProgramIdentity.parse(f"{text}/numerics=2")
    assert (first.numerics, second.numerics) == (1, 2)
    assert second == replace(first, numerics=2) != first
    assert (str(first), str(second)) == (text, f"{text}/numerics=2")


def test_an_identity_names_the_source_of_what_others_wrote() -> None:
    cpu, double = torch.device("cpu"), torch.float64
    ours = ProgramIdentity.current("eager", 1, cpu, double, 1)
    theirs = ProgramIdentity.current("eager", 1, cpu, double, 1, source="0f1e2d3c4b5a")
    assert str(theirs).replace("/source=0f1e2d3c4b5a", "") == str(ours)
    newer = replace(theirs, numerics=7)
    assert str(newer).endswith("/source=0f1e2d3c4b5a/numerics=7")
    assert ProgramIdentity.parse(str(newer)) == newer


@pytest.mark.parametrize(
    "text",
    [
        "",
        "numerics=2",
        "eager/width=1/torch=2/cpu/float32/threads=1/denormals=kept/source=",
        "eager/width=1/torch=2/cpu/float32/threads=1/denormals=kept/numerics=2/source=0f1e",
        "eager",
        "lazy/width=1/torch=2/cpu/float32/threads=1/denormals=kept",
        "eager/1/2/cpu/float32/threads=1/denormals=kept",
        "eager/width=1/torch=2/cpu/float32/threads=1",
        "eager/width=1/torch=2/cpu/float32/threads=1/denormals=some",
        "eager/width=1/torch=2/cpu/float32/threads=1/denormals=kept/numerics=1",
        "eager/width=1/torch=2/cpu/float32/threads=1/denormals=kept/numerics=0",
        "eager/width=1/torch=2/cpu/float32/threads=1/denormals=kept/numerics=new",
        "eager/width=1/torch=2/cpu/float32/threads=1/numerics=2",
        "eager/width=1/torch=2/cpu/float32/threads=1/denormals=kept/regularisers=1",
        "compiled/width=1/torch=2/cpu/float32/threads=1/denormals=kept/regularisers=0",
        "compiled/width=1/torch=2/cpu/float32/threads=1/denormals=kept/regularisers=16",
        "compiled/width=1/torch=2/cpu/float32/threads=1/denormals=kept/regularisers=-1",
        "compiled/width=1/torch=2/cpu/float32/threads=1/denormals=kept/regularisers=all",
    ],
)
def test_text_that_is_no_program_identity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a program identity"):
        ProgramIdentity.parse(text)
