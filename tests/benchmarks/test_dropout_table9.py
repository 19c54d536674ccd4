"""Table 9 of the paper on dropout: arms are tuned alike, and it runs where little is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.dropout_table9 import QUICK
from benchmarks.dropout_table9_runs import PUBLISHED, RANGES, RATES, Parts, configurations
from tests.tasks import idx_files

ROOT = Path(__file__).parents[2]
SIZE = replace(QUICK, configs=8)

WITHOUT = """
import runpy, sys
for name in ("pydantic", "sklearn", "optuna", "sqlalchemy", "yaml"):
    sys.modules[name] = None
runpy.run_module("benchmarks.dropout_table9", run_name="__main__", alter_sys=True)
"""
"""Packages that a machine with a GPU may lack cannot be imported."""


def run(*arguments: str) -> tuple[list[dict[str, Any]], str]:
    """The rows, and what was told of the progress."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "--threads", "1", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_arms_that_search_the_same_draw_the_same() -> None:
    by_arm = {arm: configurations(arm, SIZE) for arm in PUBLISHED}
    assert {len(configs) for configs in by_arm.values()} == {8}
    for name in RANGES:
        columns = [
            [config[name] for config in configs]
            for configs in by_arm.values()
            if name in configs[0]
        ]
        assert columns
        assert all(column == columns[0] for column in columns)


@pytest.mark.parametrize("arm", PUBLISHED)
def test_each_part_of_a_range_has_one_draw(arm: str) -> None:
    configs = configurations(arm, SIZE)
    for name, (low, high) in RANGES.items():
        is_searched = name in ("learning_rate", *arm.split("+"))
        assert all((name in config) == is_searched for config in configs)
        if is_searched:
            # λ/(2m) for the textbooks' λ
            unit = 2 * SIZE.train if name in ("l1", "l2") else 1
            values = [config[name] * unit for config in configs]
            shares = np.log(np.divide(values, low)) / np.log(high / low)
            assert sorted(np.floor(8 * shares)) == [*range(8)]
    for name, rate in RATES.items():
        assert all(config.get(name, 0) == rate * ("dropout" in arm) for config in configs)


@pytest.mark.parametrize("joins", [False, True])
def test_nothing_is_chosen_by_what_judges(joins: bool) -> None:
    parts, cpu = Parts.read(None, SIZE), torch.device("cpu")
    to_choose, to_tell = parts.to_choose(cpu), parts.to_tell(cpu, joins=joins)
    num_tested = to_choose.test.num_samples
    assert np.array_equal(to_choose.test.x, parts.validation.x_ND[:num_tested])
    assert np.array_equal(to_tell.test.x, parts.test.x_ND)
    assert to_choose.train.num_samples == SIZE.train
    assert to_tell.train.num_samples == SIZE.train + joins * SIZE.validation


def test_it_tells_of_each_arm_and_each_pair() -> None:
    (first, *rows), _ = run("--quick", "--hidden", "8", "8")
    assert first["benchmark"] == "dropout_table9"
    assert (first["data"], first["hidden"], first["seeds"]) == ("made", [8, 8], 3)
    arms = {row["arm"]: row for row in rows if "arm" in row}
    assert {arm: row["published"] for arm, row in arms.items()} == PUBLISHED
    for row in arms.values():
        assert len(row["scores"]) == 3
        assert row["test_error"] == pytest.approx(np.mean(row["scores"]), abs=1e-3)
        low, high = row["interval"]
        assert low <= row["test_error"] <= high
        assert row["validation_error"] == min(row["searched"])
    pairs = [row for row in rows if "pair" in row]
    assert len(pairs) == 15
    for row in pairs:
        one, other = (arms[arm]["scores"] for arm in row["pair"])
        assert row["difference"] == pytest.approx(np.subtract(one, other).mean(), abs=1e-3)
        assert row["verdict"] in ("better", "worse", "open")


def test_it_reads_the_files_of_mnist(tmp_path: Path) -> None:
    for name, num_rows in (("train", 40), ("t10k", 20)):
        generator = np.random.default_rng(num_rows)
        images = generator.integers(0, 256, (num_rows, 28, 28), dtype=np.uint8)
        labels = generator.integers(0, 10, num_rows, dtype=np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = tmp_path / f"{name}-{kind}-ubyte.gz"
            idx_files.write(path, idx_files.encode(array))
    sizes = ["--train", "30", "--validation", "10", "--hidden", "4", "--configs", "1"]
    (first, *rows), _ = run("--quick", "--mnist", str(tmp_path), *sizes)
    assert first["data"] == "mnist"
    errors = [error for row in rows if "arm" in row for error in row["scores"]]
    assert {error % 5 for error in errors} == {0}  # of 20 test images


def test_it_tells_what_it_has_when_time_is_up() -> None:
    (_, *rows), told = run("--quick", "--seconds", "0")
    assert rows == []
    assert "when time was up" in told
