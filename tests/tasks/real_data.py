"""Real data sets, where somebody has them: in the folder that RIDGELINE_DATA_ROOT names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ridgeline.search.tasks.data import Dataset
from ridgeline.search.tasks.datasets import load

needs_real_data = pytest.mark.skipif(
    "RIDGELINE_DATA_ROOT" not in os.environ,
    reason="RIDGELINE_DATA_ROOT names no folder of real data sets",
)


def real_root() -> Path:
    return Path(os.environ["RIDGELINE_DATA_ROOT"])


def real_messages(folder: Path) -> Dataset:
    """The SMS spam collection, whose file is one of texts under another name."""
    (folder / "sms").mkdir()
    source = real_root() / "sms-spam" / "SMSSpamCollection"
    (folder / "sms" / "train.tsv").write_bytes(source.read_bytes())
    return load("sms", folder)
