"""Buffers of whole numbers that may change, among the statistics of a slot, which are real numbers.

A module that is taken slot by slot may count in them, as batch norm without a momentum does.  They
are kept byte by byte, since a float32 does not hold every whole number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ridgeline.search.engine.models.module_template import Template


def whole_numbers(template: Template) -> Mapping[str, Tensor]:
    """The buffers that are kept, with what a run begins with; none where slots go at once."""
    if template.survey.obstacle is None:
        return {}
    named = zip(template.parts.constants, template.constants, strict=True)
    return {name: numbers for name, numbers in named if numbers.numel()}


def as_bytes(numbers: Tensor) -> Tensor:
    """The bytes of whole numbers, [number of bytes], each from 0 to 255."""
    return numbers.detach().reshape(-1).view(torch.uint8).float()


def from_bytes(bytes_: Tensor, like: Tensor) -> Tensor:
    """The whole numbers that `as_bytes` was given, of the type and shape of others."""
    return bytes_.to(torch.uint8).view(like.dtype).view(like.shape)
