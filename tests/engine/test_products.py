"""The library that multiplies: chosen by what a program is, and exact to float32."""

from __future__ import annotations

import itertools

import pytest
import torch

from ridgeline.search.engine import Mlp, Pack, processor
from ridgeline.search.engine import products as module
from ridgeline.search.engine.native import Kernels
from ridgeline.search.engine.products import (
    multiplies_with_onednn,
    products,
)
from tests.engine.sets import CPU, config, samples, step_spec

MANY = 1e9


def precision() -> str:
    return torch.backends.mkldnn.matmul.fp32_precision


@pytest.mark.parametrize(
    ("flops", "device", "dtype", "expected"),
    [
        (MANY, CPU, torch.float32, True),
        (1e5, CPU, torch.float32, False),
        (MANY, CPU, torch.float64, False),
        (MANY, torch.device("cuda"), torch.float32, False),
    ],
)
def test_large_products_of_float32_are_for_the_wider_library(
    flops: float,
    device: torch.device,
    dtype: torch.dtype,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_has_wider_onednn", lambda: True)
    assert multiplies_with_onednn(flops, device, dtype) is expected
    monkeypatch.setattr(module, "_has_wider_onednn", lambda: False)
    assert not multiplies_with_onednn(flops, device, dtype)


def test_the_setting_holds_within_and_goes_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_has_wider_onednn", lambda: True)
    before = precision()
    library = products(MANY, CPU, torch.float32)
    for _ in range(2):
        with library:
            assert precision() == "bf16"
        assert precision() == before
    with pytest.raises(ValueError, match="not a number"), library:
        raise ValueError("not a number")
    assert precision() == before


@pytest.mark.parametrize(
    ("num_slots", "m", "n", "k"),
    [*itertools.product([1, 3, 8], [10, 37, 128], [32, 211], [91, 784]), (2, 512, 512, 512)],
)
def test_products_keep_float32(num_slots: int, m: int, n: int, k: int) -> None:
    """Each of their terms is rounded to a bfloat16 nowhere: that would cost 2⁻⁹ of it."""
    generator = torch.Generator().manual_seed(m * n * k)
    a, b = (torch.rand(num_slots, *sides, generator=generator) + 0.5 for sides in ((m, k), (n, k)))
    with products(MANY, CPU, torch.float32):
        product = torch.bmm(a, b.transpose(1, 2))
    exact = torch.bmm(a.double(), b.double().transpose(1, 2))
    assert ((product - exact) / exact).abs().max() < 2**-18


@pytest.mark.parametrize("maker", ["GenuineIntel", ""])
def test_mkl_keeps_the_processors_it_is_made_for(
    maker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "maker", lambda: maker)
    assert not module._has_wider_onednn.__wrapped__()


def test_native_packs_of_a_model_are_for_one_library(
    kernels: Kernels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of two could not train side by side, and a search has many batch sizes."""
    monkeypatch.setattr(module, "_has_wider_onednn", lambda: True)
    for hidden, expected in ((64, False), (512, True)):
        model = Mlp(784, (hidden,), 4)
        data = samples(model, num_train=40, dtype=torch.float32)
        specs = [step_spec(config(batch_size=size), model, data) for size in (1, 16, 40)]
        packs = [Pack(s, data, width=width, kernels=kernels) for s in specs for width in (1, 32)]
        assert {pack.with_onednn for pack in packs} == {expected}
