"""Ways to compute one convolution of every slot of a pack, by its shape.

    python -m benchmarks.engine_convolutions --device cuda --out FILE

A row a shape and number of slots: the microseconds that forward and backward pass take of all
slots, at best of some rounds, and whether the same numbers give the same bits again.  Needs torch
and numpy alone.

* `solo`: torch's convolution, slot after slot; `solo_last`: with the channels last; `streams`: on 8
  streams of a GPU;
* `grouped`: one convolution of so many groups; `grouped_last`: with the channels last;
* `packs_of_4`, `packs_of_16`: grouped ones of so many slots, one after the other;
* `unfolded`: windows as columns (im2col), and a product of each slot with them.

Those of packs keep to cuDNN's deterministic kernels, as the engine does, the others do not.

# K slots, B rows of a batch, C channels, O output channels, W numbers of a window, L places
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.engine_loops import synchronise
from benchmarks.rows import Row, count, header, tell, write
from ridgeline.search.engine.threads import computing

Pass = Callable[[], Sequence[Tensor]]

_ROUNDS, _ROUND_SECONDS = 5, 0.01
_NUM_STREAMS = 8
_BATCH = 64


@dataclass(frozen=True)
class Shape:
    """One convolution; its images and windows are squares."""

    channels: int
    outputs: int
    size: int
    window: int
    stride: int = 1
    padding: int = 0
    is_first: bool = False
    """Whether nobody asks for the gradient of what comes in."""


SHAPES = {
    "lenet-1": Shape(1, 6, 28, 5, padding=2, is_first=True),
    "lenet-2": Shape(6, 16, 14, 5),
    "resnet-1": Shape(3, 16, 32, 3, padding=1, is_first=True),
    "resnet-16": Shape(16, 16, 32, 3, padding=1),
    "resnet-16-32": Shape(16, 32, 32, 3, stride=2, padding=1),
    "resnet-shortcut": Shape(16, 32, 32, 1, stride=2),
    "resnet-32": Shape(32, 32, 16, 3, padding=1),
    "resnet-64": Shape(64, 64, 8, 3, padding=1),
    "wide-64": Shape(64, 64, 32, 3, padding=1),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine_convolutions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=count, help="of torch on a CPU")
    parser.add_argument("--shapes", nargs="*", choices=SHAPES, default=[*SHAPES])
    parser.add_argument("--slots", nargs="*", type=count, default=[4, 16, 64])
    parser.add_argument("--out", type=Path, help="a file to append the rows to")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    first = header("engine_convolutions", device)
    write(first, arguments.out)
    for name in arguments.shapes:
        for num_slots in arguments.slots:
            tell(f"{name}: {num_slots} slots")
            for row in _measure(SHAPES[name], num_slots, device):
                write({"shape": name, "device": first["device"], **row}, arguments.out)


def _measure(shape: Shape, num_slots: int, device: torch.device) -> Iterator[Row]:
    generator = torch.Generator().manual_seed(0)

    def random(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator).to(device)

    places = (shape.size + 2 * shape.padding - shape.window) // shape.stride + 1
    x_KB = random(num_slots, _BATCH, shape.channels, shape.size, shape.size)
    weights_K = random(num_slots, shape.outputs, shape.channels, shape.window, shape.window)
    gradients_KB = random(num_slots, _BATCH, shape.outputs, places, places)
    row: Row = {**asdict(shape), "slots": num_slots, "batch_size": _BATCH}
    microseconds, repeats = {}, {}
    for name, run in _ways(shape, x_KB, weights_K, gradients_KB):
        try:
            with nullcontext() if name.startswith(("solo", "streams")) else computing(0):
                microseconds[name], repeats[name] = _timed(run, device)
        except (RuntimeError, torch.OutOfMemoryError) as exc:
            row.setdefault("failed", {})[name] = str(exc).partition("\n")[0]
    row |= {"microseconds": microseconds, "best": min(microseconds, key=microseconds.__getitem__)}
    row["same_bits_again"] = repeats
    yield row


def _ways(
    shape: Shape, x_KB: Tensor, weights_K: Tensor, gradients_KB: Tensor
) -> Iterator[tuple[str, Pass]]:
    num_slots = len(weights_K)
    for name, layout in (("solo", torch.contiguous_format), ("solo_last", torch.channels_last)):
        yield name, _grouped(shape, 1, layout, x_KB, weights_K, gradients_KB)
    if x_KB.device.type == "cuda":
        streams = [_stream() for _ in range(_NUM_STREAMS)]
        yield "streams", lambda: _on_streams(shape, streams, x_KB, weights_K, gradients_KB)
    for name, size, layout in (
        ("grouped", num_slots, torch.contiguous_format),
        ("grouped_last", num_slots, torch.channels_last),
        ("packs_of_4", 4, torch.contiguous_format),
        ("packs_of_16", 16, torch.contiguous_format),
    ):
        if size > num_slots or (name.startswith("packs") and size == num_slots):
            continue
        yield name, _grouped(shape, size, layout, x_KB, weights_K, gradients_KB)

    yield "unfolded", _unfolded(shape, x_KB, weights_K, gradients_KB)


def _convolve(
    shape: Shape, x: Tensor, weight: Tensor, gradient: Tensor, groups: int = 1
) -> tuple[Tensor, ...]:
    sizes = ([shape.stride] * 2, [shape.padding] * 2, [1, 1], False, [0, 0], groups)
    y = functional.conv2d(x, weight, None, shape.stride, shape.padding, 1, groups)
    wanted = [not shape.is_first, True, False]
    found = torch.ops.aten.convolution_backward(gradient, x, weight, None, *sizes, wanted)
    return (y, *(one for one in found if one is not None))


def _stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def _on_streams(
    shape: Shape,
    streams: Sequence[torch.cuda.Stream],
    x_KB: Tensor,
    weights_K: Tensor,
    gradients_KB: Tensor,
) -> Sequence[Tensor]:
    current, results = torch.cuda.current_stream(), list[Tensor]()
    for stream in streams:
        stream.wait_stream(current)
    for i, slot in enumerate(zip(x_KB, weights_K, gradients_KB, strict=True)):
        with torch.cuda.stream(streams[i % len(streams)]):
            results += _convolve(shape, *slot)
    for stream in streams:
        current.wait_stream(stream)
    return results


def _grouped(
    shape: Shape,
    size: int,
    layout: torch.memory_format,
    x_KB: Tensor,
    weights_K: Tensor,
    gradients_KB: Tensor,
) -> Pass:
    """Of so many slots at a time, which lie as a grouped convolution wants them."""

    def side_by_side(stack_KB: Tensor) -> Tensor:
        return stack_KB.transpose(0, 1).flatten(1, 2).contiguous(memory_format=layout)

    groups = [
        (
            side_by_side(x_KB[i : i + size]),
            weights_K[i : i + size].flatten(0, 1).contiguous(memory_format=layout),
            side_by_side(gradients_KB[i : i + size]),
        )
        for i in range(0, len(weights_K), size)
    ]
    return lambda: [t for group in groups for t in _convolve(shape, *group, groups=size)]


def _unfolded(shape: Shape, x_KB: Tensor, weights_K: Tensor, gradients_KB: Tensor) -> Pass:
    """By `unfold` and its inverse, to which the slots' images are one batch."""
    num_slots, num_rows = x_KB.shape[:2]
    images, places = x_KB.flatten(0, 1), gradients_KB.shape[-1] ** 2
    geometry = (shape.window, 1, shape.padding, shape.stride)
    weights_KOW = weights_K.flatten(2)
    gradients_KOL = gradients_KB.flatten(3).transpose(1, 2).flatten(2).contiguous()

    def run() -> Sequence[Tensor]:
        columns = functional.unfold(images, *geometry).view(num_slots, num_rows, -1, places)
        columns_KWL = columns.transpose(1, 2).reshape(num_slots, -1, num_rows * places)
        y_KOL = torch.bmm(weights_KOW, columns_KWL)
        found = [torch.bmm(gradients_KOL, columns_KWL.mT)]
        if not shape.is_first:
            back = torch.bmm(weights_KOW.mT, gradients_KOL)
            back = back.view(num_slots, -1, num_rows, places).transpose(1, 2)
            size = (shape.size, shape.size)
            found.append(functional.fold(back.flatten(0, 1), size, *geometry))
        return [y_KOL, *found]

    return run


def _timed(run: Pass, device: torch.device) -> tuple[float, bool]:
    """The microseconds of a pass at best, and whether another one gives the same bits."""
    first = [tensor.clone() for tensor in run()]
    repeats = all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))
    del first

    def seconds(count: int) -> float:
        synchronise(device)
        before = time.perf_counter()
        for _ in range(count):
            run()
        synchronise(device)
        return (time.perf_counter() - before) / count

    count = max(1, int(_ROUND_SECONDS / seconds(1)))
    return round(1e6 * min(seconds(count) for _ in range(_ROUNDS))), repeats


if __name__ == "__main__":
    main()
