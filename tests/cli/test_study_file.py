"""Study files: what is read, and how errors name file and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ridgeline.service.cli.problems import Problem
from ridgeline.service.cli.study_file import load_study
from ridgeline.service.cli.yaml_file import MAX_FILE_BYTES

EXAMPLES = Path(__file__).parents[2] / "examples"

GOOD = """\
name: digits
task: {name: mlp, dataset: digits}
space:
  learning_rate:
    type: float
    low: 1e-4
    high: 1e-1
    log: true
  optimizer: {type: values, values: [sgd, adam]}
sampler: {name: random}
budget: {trials: 10}
"""


def lines_of(text: str | bytes, tmp_path: Path) -> list[str]:
    """What is wrong with a file, without the folder it lies in."""
    path = tmp_path / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(Problem) as caught:
        load_study(path)
    assert caught.value.exit_code == 2
    assert all("\n" not in line for line in caught.value.lines)
    return [line.removeprefix(f"{tmp_path}/") for line in caught.value.lines]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_examples_are_studies(path: Path) -> None:
    assert path.stem in load_study(path).name


def test_the_example_grid_has_36_cells() -> None:
    assert load_study(EXAMPLES / "grid.yaml").num_trials == 36


def test_exponents_without_a_point_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(GOOD)
    assert load_study(path).space["learning_rate"].decode(0.0) == 1e-4


def test_words_that_are_booleans_in_yaml_1_1_stay_words(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(GOOD.replace("name: digits\n", "name: off\n"))
    assert load_study(path).name == "off"


def test_octal_and_sexagesimal_numbers_of_yaml_1_1_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(GOOD.replace("trials: 10", "trials: 010, epochs: 0x10"))
    assert load_study(path).budget.trials == 10
    assert load_study(path).budget.epochs == 16
    assert "budget.trials" in lines_of(GOOD.replace("trials: 10", "trials: 1:30"), tmp_path)[0]


def test_json_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text(load_study(EXAMPLES / "tpe.yaml").model_dump_json())
    assert load_study(path).name == "digits-tpe"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("high: 1e-1", "high: 1e-5"), "study.yaml:4: space.learning_rate: "),
        (("high: 1e-1", "high: much"), "study.yaml:7: space.learning_rate.high: "),
        (("high: 1e-1", "hihg: 1e-1"), "study.yaml:4: space.learning_rate.high: is missing"),
        (("[sgd, adam]", "[sgd, adma]"), "study.yaml:9: space.optimizer: 'adma' is not one of"),
        (("name: random", "name: magic"), "study.yaml:10: sampler.name: "),
        (("{trials: 10}", "{}"), "study.yaml:11: budget.trials: is needed"),
        (("optimizer:", "optimiser:"), "study.yaml:9: space.optimiser: is not a parameter"),
        (("task: {name: mlp, dataset: digits}\n", ""), "study.yaml:1: task: is missing"),
    ],
)
def test_problems_name_the_field_and_its_line(
    change: tuple[str, str], line: str, tmp_path: Path
) -> None:
    assert lines_of(GOOD.replace(*change), tmp_path)[0].startswith(line)


def test_every_problem_has_a_line_of_its_own(tmp_path: Path) -> None:
    text = GOOD.replace("name: digits", "name: ../digits").replace("trials: 10", "trials: 0")
    assert [line.partition(": ")[0] for line in lines_of(text, tmp_path)] == [
        "study.yaml:1",
        "study.yaml:11",
    ]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            ("    type: float\n", "    <<: *float\n"),
            "study.yaml:5: YAML 1.2 has no merge key <<; write the fields out",
        ),
        (
            ("[sgd, adam]", "[sgd], low: 0,0001"),
            "study.yaml:9: the key 1 is not a text; if it is the rest of a number, write the "
            "comma as a point",
        ),
        (
            ("low: 1e-4", "low: 0,0001"),
            "study.yaml:6: space.learning_rate.low: must be a number; write its comma as a point",
        ),
        (("name: random", "? [a]\n: b"), "study.yaml:10: the key ['a'] is not a text"),
    ],
)
def test_notations_of_elsewhere_are_told(
    change: tuple[str, str], line: str, tmp_path: Path
) -> None:
    text = GOOD.replace("name: digits\n", "name: &float digits\n").replace(*change)
    assert lines_of(text, tmp_path) == [line]


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    text = GOOD.replace("    low: 1e-4\n", "    low: 1e-4\n    low: 1e-3\n")
    assert lines_of(text, tmp_path) == ["study.yaml:7: the key low stands here twice"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "study.yaml:1: a study is a mapping"),
        ("- 1\n", "study.yaml:1: a study is a mapping"),
        ("name: [a\nb: c\n", "study.yaml:2: "),
        ("name: a\n---\nname: b\n", "study.yaml:2: "),
        ("a: \0", "study.yaml: unacceptable character"),
        (b"a: \xff\xfe\xff", "study.yaml: "),
        ("[" * 50_000, "study.yaml: is nested too deeply"),
        ("a: " + "1" * 5_000, "study.yaml:1: this number is too long"),
        ("? [a]\n: b\n", "study.yaml:1: "),
        ("a: !!python/object/apply:os.getcwd []", "study.yaml:1: could not determine"),
        (" " * (MAX_FILE_BYTES + 1), "study.yaml: is larger than"),
    ],
    ids=[
        "empty", "list", "flow", "two documents", "nul", "not utf-8", "deep", "digits",
        "key that is a list", "python object", "large",
    ],
)  # fmt: skip
def test_what_is_no_study_is_told_in_one_line(text: str | bytes, line: str, tmp_path: Path) -> None:
    (found,) = lines_of(text, tmp_path)
    assert found.startswith(line)


def test_an_alias_that_holds_itself_is_a_wrong_field(tmp_path: Path) -> None:
    assert lines_of(GOOD.replace("{name: random}", "&a [*a]"), tmp_path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"cannot read .*: No such file"):
        load_study(tmp_path / "absent.yaml")
    with pytest.raises(Problem, match=r"cannot read .*: Is a directory"):
        load_study(tmp_path)
