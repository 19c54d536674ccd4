"""The oracle of augmentation: one sample at a time, by functions of torch where there are any.

Of the engine it takes the uniform numbers, and the tables of normal numbers and of mixup's shares.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ridgeline.search.engine import RunConfig, rng
from ridgeline.search.engine.augment_memory import mixup_shares
from ridgeline.search.engine.normal import normal_quantiles


def uniform_of(config: RunConfig, step: int, num_rows: int, num_numbers: int) -> Tensor:
    """The draws of each row of a batch, [B, 16 + D]."""
    return rng.uniform(
        [config.seed],
        rng.Stream.AUGMENTATION,
        step,
        num_rows * (16 + num_numbers),
        device=torch.device("cpu"),
        dtype=torch.float64,
    ).view(num_rows, 16 + num_numbers)


def augmented(config: RunConfig, step: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """A batch [B, …] in the step of a run, and the share of the next row in each, [B]."""
    no_shares = torch.zeros(len(x), dtype=torch.float64)
    if not config.augmentations:
        return x, no_shares
    uniform = uniform_of(config, step, len(x), x[0].numel())
    single = torch.stack([_changed(config, u, one) for u, one in zip(uniform, x, strict=True)])
    if config.mixup == 0:
        return single, no_shares
    table = torch.tensor(mixup_shares(config.mixup))
    shares = torch.stack([table[int(1024 * u[8])] for u in uniform])
    mixed = [(1 - m) * single[b] + m * single[(b + 1) % len(x)] for b, m in enumerate(shares)]
    return torch.stack(mixed), shares


def _changed(config: RunConfig, u: Tensor, x: Tensor) -> Tensor:
    if x.dim() == 3:
        x = _moved(config, u, x)
        mean = x.mean()
        x = mean + (1 + config.contrast * (2 * u[6] - 1)) * (x - mean)
        x = x + config.brightness * (2 * u[7] - 1)
    noise = torch.tensor(normal_quantiles())[(u[16:] * 4096).long()]
    x = x + config.input_noise * noise.view_as(x)
    return _cut(config, u, x) if x.dim() == 3 else x


def _moved(config: RunConfig, u: Tensor, image: Tensor) -> Tensor:
    _, height, width = image.shape
    if u[2] < config.flip:
        image = image.flip(2)
    down, right = (math.floor(v * (2 * config.shift + 1) - config.shift) for v in u[:2].tolist())
    if config.rotation > 0:
        angle = math.radians(config.rotation * (2 * (int(1024 * u[3]) + 0.5) / 1024 - 1))
        cosine, sine = math.cos(angle), math.sin(angle)
        # In units of half a side, so that a pixel is not as high as wide.
        theta = torch.tensor(
            [
                [cosine, -sine * height / width, 2 * (sine * down - cosine * right) / width],
                [sine * width / height, cosine, -2 * (cosine * down + sine * right) / height],
            ],
            dtype=image.dtype,
        )
        grid = F.affine_grid(theta[None], [1, *image.shape], align_corners=False)
        return F.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]
    # As a crop of the image, padded far enough.
    far = math.ceil(config.shift)
    (padded,) = F.pad(image[None], (far, far, far, far), mode="replicate")
    return padded[:, far - down : far - down + height, far - right : far - right + width]


def _cut(config: RunConfig, u: Tensor, image: Tensor) -> Tensor:
    _, height, width = image.shape
    image = image.clone()
    side = math.sqrt(config.cutout)
    row, column = (u[4] * height).item(), (u[5] * width).item()
    for r in range(height):
        for c in range(width):
            is_near = abs(r + 0.5 - row) < side * height / 2
            if is_near and abs(c + 0.5 - column) < side * width / 2:
                image[:, r, c] = 0
    return image
