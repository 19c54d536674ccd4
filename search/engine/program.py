"""The identity of a program: what must be equal for two results to be equal to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch

from ridgeline.search.engine import processor
from ridgeline.search.engine.config import Regulariser
from ridgeline.search.engine.threads import can_flush_denormals

Form = Literal["eager", "native", "compiled"]
"""Of torch's operations alone; of those and the kernels of `native`; of one compiled library."""

Denormals = Literal["flushed", "kept"]

NUMERICS = 5
"""The version of this engine's arithmetic, by which older checkpoints are told from newer ones.

Raise it with every change after which a run of any form may end with other bits than before: other
operations or another order of them, in Python or in `kernels.cpp`, other flags of a compiler, other
draws or coefficients.  `tests/engine/test_numerics.py` notices such changes.
"""


@dataclass(frozen=True)
class ProgramIdentity:
    """The program that trains a lane at a width.  A run keeps one for life and stores it.

    Its text is `native/width=8/torch=2.13.0/x86_64-GenuineIntel-AVX2/float32/threads=1` with
    `/denormals=flushed` at its end, and the name of a GPU in the place of a processor's kind.  The
    number of threads counts on a CPU only, where it decides how a sum is split; elsewhere it is 0.
    Denormals are numbers so small that a CPU is slow with them.  `regularisers` are those that a
    compiled program has, and come next as `/regularisers=9`, with 1 for the first kind, 2 for the
    second, 4 and 8.  Texts of programs without have no such part; other forms have none, since they
    leave out what no slot needs.  `source` is that of the model, and follows as
    `/source=0f1e2d3c4b5a` where there is one.  `numerics` is `NUMERICS` at the time, and ends the
    text as `/numerics=4`; the first version has texts without.
    """

    form: Form
    width: int
    torch_version: str
    device_kind: str
    dtype: str
    threads: int
    denormals: Denormals
    regularisers: tuple[Regulariser, ...] = ()
    numerics: int = NUMERICS
    source: str = ""

    @classmethod
    def current(
        cls,
        form: Form,
        width: int,
        device: torch.device,
        dtype: torch.dtype,
        threads: int,
        regularisers: tuple[Regulariser, ...] = (),
        source: str = "",
    ) -> ProgramIdentity:
        """The identity of a program built here and now, for so many threads of a CPU."""
        if device.type == "cuda":
            device_kind = torch.cuda.get_device_name(device).replace(" ", "-").replace("/", "-")
        else:
            device_kind = processor.kind()
        return cls(
            form=form,
            width=width,
            torch_version=str(torch.__version__),
            device_kind=device_kind,
            dtype=str(dtype).removeprefix("torch."),
            threads=threads,
            denormals="flushed" if can_flush_denormals(device) else "kept",
            regularisers=regularisers,
            source=source,
        )

    @classmethod
    def parse(cls, text: str) -> ProgramIdentity:
        """The identity whose text this is.

        Raises:
            ValueError: where it is not one.
        """
        parts = text.split("/")
        numerics = parts.pop() if parts[-1].startswith("numerics=") else "numerics=1"
        source = parts.pop() if parts and parts[-1].startswith("source=") else ""
        has_kinds = bool(parts) and parts[-1].startswith("regularisers=")
        kinds = parts.pop() if has_kinds else "regularisers=0"
        try:
            form, width, torch_version, device_kind, dtype, threads, denormals = parts
            identity = cls(
                form=cast(Form, form),
                width=int(width.removeprefix("width=")),
                torch_version=torch_version.removeprefix("torch="),
                device_kind=device_kind,
                dtype=dtype,
                threads=int(threads.removeprefix("threads=")),
                denormals=cast(Denormals, denormals.removeprefix("denormals=")),
                regularisers=_kinds_of(int(kinds.removeprefix("regularisers="))),
                numerics=int(numerics.removeprefix("numerics=")),
                source=source.removeprefix("source="),
            )
        except ValueError as exc:
            raise ValueError(f"not a program identity: {text!r}") from exc
        is_known = form in get_args(Form) and identity.denormals in get_args(Denormals)
        is_known &= form == "compiled" or not identity.regularisers
        if not is_known or identity.numerics < 1 or str(identity) != text:
            raise ValueError(f"not a program identity: {text!r}")
        return identity

    def __str__(self) -> str:
        return (
            f"{self.form}/width={self.width}/torch={self.torch_version}/{self.device_kind}"
            f"/{self.dtype}/threads={self.threads}/denormals={self.denormals}"
            + (f"/regularisers={_mask_of(self.regularisers)}" if self.regularisers else "")
            + (f"/source={self.source}" if self.source else "")
            + (f"/numerics={self.numerics}" if self.numerics > 1 else "")
        )


def _mask_of(kinds: tuple[Regulariser, ...]) -> int:
    return sum(2**i for i, kind in enumerate(get_args(Regulariser)) if kind in kinds)


def _kinds_of(mask: int) -> tuple[Regulariser, ...]:
    return tuple(kind for i, kind in enumerate(get_args(Regulariser)) if mask >> i & 1)
