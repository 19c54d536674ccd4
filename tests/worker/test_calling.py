"""Which values that a function returns or reports are numbers."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from ridgeline.service.worker.functions.calling import number_of


@pytest.mark.parametrize(
    "value",
    [
        *(0.5, Decimal("0.5"), Fraction(1, 2), np.float16(0.5), np.float32(0.5), np.float64(0.5)),
        *(np.longdouble(0.5), np.array(0.5), np.array(0.5, object), torch.tensor(0.5)),
        torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True),
    ],
    ids=repr,
)
def test_real_numbers_are_taken(value: Any) -> None:
    assert number_of(value, "it") == 0.5


@pytest.mark.parametrize("value", [1, np.int8(1), np.uint64(1), np.array(1), torch.tensor(1)])
def test_whole_numbers_are_taken(value: Any) -> None:
    assert number_of(value, "it") == 1.0


def test_a_whole_number_beyond_floats_is_infinite() -> None:
    assert number_of(10**400, "it") == math.inf


@pytest.mark.parametrize(
    "value",
    [
        *(True, "0.5", b"0.5", 1 + 2j, None, [0.5], np.bool_(True), np.array(False)),
        *(np.complex64(1 + 2j), np.complex128(1 + 2j), np.clongdouble(1), np.array(1 + 0j)),
        *(np.str_("0.5"), np.bytes_("0.5"), np.array("0.5"), np.array(b"0.5")),
        *(np.array("0.5", object), np.array(True, object), np.array(None)),
        *(np.datetime64("2020"), np.timedelta64(1, "s")),
        *(torch.tensor(True), torch.tensor(1 + 2j), np.ones((1, 2)), torch.ones(2)),
    ],
    ids=repr,
)
@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^it (is .*, not a number|has the shape .*)$"):
        number_of(value, "it")
