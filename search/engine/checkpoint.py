"""Checkpoints: tensors and plain data in bytes that are safe to load and checked when loaded.

The form is a magic line, the SHA-256 of the rest, and a numpy archive that is read without pickle,
so that bytes from somebody else can neither run code nor pass for whole when they are not.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Any

import numpy as np
import torch
from torch import Tensor

_MAGIC = b"ridgeline checkpoint 1\n"
_METADATA = "metadata.json"


class CheckpointError(ValueError):
    """Bytes that are no checkpoint, a damaged one, or that of another run or program."""


def save_checkpoint(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> bytes:
    """Tensors by name and plain JSON data, as bytes for `load_checkpoint`."""
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    assert _METADATA not in arrays
    text = json.dumps(metadata, allow_nan=False).encode()
    archive = io.BytesIO()
    np.savez(archive, allow_pickle=False, **arrays, **{_METADATA: np.frombuffer(text, np.uint8)})
    body = archive.getvalue()
    return _MAGIC + hashlib.sha256(body).digest() + body


def load_checkpoint(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the data of a checkpoint.

    Raises:
        CheckpointError: where the bytes are not those that `save_checkpoint` made.
    """
    if not content.startswith(_MAGIC):
        raise CheckpointError("not a checkpoint, or one of another version")
    digest_end = len(_MAGIC) + hashlib.sha256().digest_size
    body = content[digest_end:]
    if hashlib.sha256(body).digest() != content[len(_MAGIC) : digest_end]:
        raise CheckpointError("the checkpoint is damaged: its checksum does not fit")
    try:
        with np.load(io.BytesIO(body), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        metadata = json.loads(arrays.pop(_METADATA).tobytes())
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as exc:
        # The checksum fits, so somebody made it so; it is still not ours.
        raise CheckpointError(f"the checkpoint cannot be read: {exc}") from exc
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, metadata
