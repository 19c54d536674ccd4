"""Writes folders of tables, arrays and texts, apart from their readers."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from pyarrow import parquet

from tests.tasks.idx_files import toy_arrays


def write_lines(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def write_csv(path: Path, rows: Sequence[Sequence[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def numbers(num_rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features [N, 3] and a number [N] that follows from them, but for noise."""
    generator = np.random.Generator(np.random.PCG64(seed))
    x = generator.normal(5, 2, (num_rows, 3))
    return x, 100 + x @ [3, -2, 0.5] + generator.normal(0, 0.1, num_rows)


def write_table(folder: Path, *, column: str = "target", test_part: bool = True) -> None:
    """A whole data set as a table, of classes or of numbers."""
    for name, num_rows in (("train", 60), ("test", 30)) if test_part else (("train", 60),):
        x, y = numbers(num_rows, num_rows)
        learned = y if column == "target" else np.array(["red", "blue", "green"])[toy(num_rows)]
        rows = [[a, b, goal, c] for (a, b, c), goal in zip(x, learned, strict=True)]
        write_csv(folder / f"{name}.csv", [["a", "b", column, "c"], *rows])


def toy(num_rows: int) -> np.ndarray:
    return toy_arrays(num_rows)[1]


def write_npz(folder: Path, *, kind: str = "classes", test_part: bool = True) -> None:
    """A whole data set as arrays: colour images of classes, or rows with two numbers each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, num_rows in (("train", 60), ("test", 30)) if test_part else (("train", 60),):
        if kind == "numbers":
            x, y = numbers(num_rows, num_rows)
            np.savez(folder / f"{name}.npz", x=x, y=np.stack([y, -y], axis=1))
        else:
            images, labels = toy_arrays(num_rows)
            np.savez_compressed(folder / f"{name}.npz", x=images[:, None].repeat(3, 1), y=labels)


def mixed(num_rows: int, seed: int) -> list[list[Any]]:
    """Rows of a number, a category, a number that may be missing, and a class that follows."""
    generator = np.random.Generator(np.random.PCG64(seed))
    rows = []
    for row in range(num_rows):
        a, b = generator.normal(5, 2, 2)
        colour = ["red", "blue", "green"][row % 3]
        has_b = row % 7 != 5
        rows.append([a, colour, b if has_b else "", "high" if a + b > 10 else "low"])
    return rows


def write_mixed(folder: Path, *, test_part: bool = True) -> None:
    """A whole data set as a table with categories and missing numbers."""
    for name, num_rows in (("train", 60), ("test", 30)) if test_part else (("train", 60),):
        rows = mixed(num_rows, num_rows)
        write_csv(folder / f"{name}.csv", [["a", "colour", "b", "class"], *rows])


def write_parquet(folder: Path, *, test_part: bool = True) -> None:
    """The table of `write_mixed` in Parquet, with types of their own for its columns."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, num_rows in (("train", 60), ("test", 30)) if test_part else (("train", 60),):
        a, colour, b, label = zip(*mixed(num_rows, num_rows), strict=True)
        columns = {
            "a": pyarrow.array(a, pyarrow.float64()),
            "colour": pyarrow.array(colour).dictionary_encode(),
            "b": pyarrow.array([None if value == "" else value for value in b]),
            "class": pyarrow.array(label, pyarrow.large_string()),
        }
        parquet.write_table(pyarrow.table(columns), folder / f"{name}.parquet", row_group_size=25)


def write_data_labels(folder: Path, *, test_part: bool = True) -> None:
    """A whole data set as the challenge of NIPS 2003 has them: whole numbers, labels -1 and 1."""
    parts = (("train", 60), ("valid", 30)) if test_part else (("train", 60),)
    for name, num_rows in parts:
        x, _ = numbers(num_rows, num_rows)
        rows = [" ".join(str(round(100 * value)) for value in row) + " " for row in x]
        write_lines(folder / f"toy_{name}.data", rows)
        write_lines(folder / f"toy_{name}.labels", [str(i % 2 * 2 - 1) for i in range(num_rows)])


WORDS = ["free", "prize", "now!", "meeting", "at", "noon", "tomorrow", "ok"]


def texts(num_rows: int, seed: int = 0) -> list[tuple[str, str]]:
    """Labels and texts; what is spam has prizes in it."""
    generator = np.random.Generator(np.random.PCG64(seed))
    rows = []
    for row in range(num_rows):
        words = [WORDS[i] for i in generator.integers(3, len(WORDS), 4)]
        is_spam = row % 3 == 0
        rows.append(("spam", " ".join([*words, "Prize"])) if is_spam else ("ham", " ".join(words)))
    return rows


def write_texts(folder: Path, *, test_part: bool = True) -> None:
    for name, num_rows in (("train", 60), ("test", 30)) if test_part else (("train", 60),):
        rows = texts(num_rows, num_rows)
        write_lines(folder / f"{name}.tsv", [f"{label}\t{text}" for label, text in rows])


def write_text_table(folder: Path) -> None:
    rows = [list(row) for row in texts(60, 60)]
    write_csv(folder / "train.csv", [["label", "text"], *rows])
