"""The identity of a program: what must be equal for two results to be equal to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch

from search.engine import processor

Form = Literal["eager", "compiled"]


@dataclass(frozen=True)
class ProgramIdentity:
    """The program that trains a lane at a width.  A run keeps one for life and stores it.

    Its text is `eager/width=1/torch=2.13.0/x86_64-GenuineIntel-AVX2/float32/threads=2`, with the
    name of a GPU in the place of a processor's kind.  The number of threads counts on a CPU only,
    where it decides how a sum is split; elsewhere it is 0.
    """

    form: Form
    width: int
    torch_version: str
    device_kind: str
    dtype: str
    threads: int

    @classmethod
    def current(
        cls, form: Form, width: int, device: torch.device, dtype: torch.dtype
    ) -> ProgramIdentity:
        """The identity of a program built here and now."""
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
            threads=torch.get_num_threads() if device.type == "cpu" else 0,
        )

    @classmethod
    def parse(cls, text: str) -> ProgramIdentity:
        """The identity whose text this is.

        Raises:
            ValueError: where it is not one.
        """
        parts = text.split("/")
        try:
            form, width, torch_version, device_kind, dtype, threads = parts
            identity = cls(
                form=cast(Form, form),
                width=int(width.removeprefix("width=")),
                torch_version=torch_version.removeprefix("torch="),
                device_kind=device_kind,
                dtype=dtype,
                threads=int(threads.removeprefix("threads=")),
            )
        except ValueError as exc:
            raise ValueError(f"not a program identity: {text!r}") from exc
        if form not in get_args(Form) or str(identity) != text:
            raise ValueError(f"not a program identity: {text!r}")
        return identity

    def __str__(self) -> str:
        return (
            f"{self.form}/width={self.width}/torch={self.torch_version}/{self.device_kind}"
            f"/{self.dtype}/threads={self.threads}"
        )
