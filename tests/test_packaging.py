"""What is installed is all that is needed, and takes no name but its own."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src"


def test_every_file_that_is_no_module_is_packaged() -> None:
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packaged = {
        file.resolve()
        for package, patterns in configuration["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for file in SOURCES.joinpath(*package.split(".")).glob(pattern)
    }
    files = {
        file
        for folder in ("search", "service", "src/ridgeline")
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and file.suffix not in (".py", ".pyc")
    }
    assert files == packaged


@pytest.mark.parametrize("form", ["-c", "-m"])
def test_a_users_own_search_and_service_are_not_mistaken_for_ours(
    tmp_path: Path, form: str
) -> None:
    """Nor ours for theirs: neither name is taken by what is installed."""
    (tmp_path / "search.py").write_text("WHOSE = 'mine'\n")
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__init__.py").write_text("WHOSE = 'mine'\n")
    program = (
        "import search, service\n"
        "from ridgeline import ApiError, Client, ClientError, Unreachable\n"
        "import ridgeline.search.spec, ridgeline.service.api.app\n"
        "print(search.WHOSE, service.WHOSE, Client.__module__)\n"
    )
    (tmp_path / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, form, program if form == "-c" else "program"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["mine", "mine", "ridgeline.service.client"]


def test_ridgeline_is_the_only_name_that_is_installed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import ridgeline.search, ridgeline.service, search"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.strip().endswith("ModuleNotFoundError: No module named 'search'")


def test_the_package_says_what_it_lacks() -> None:
    import ridgeline

    assert set(ridgeline.__all__) <= set(dir(ridgeline))
    with pytest.raises(AttributeError, match="'ridgeline' has no attribute 'client'"):
        ridgeline.client  # noqa: B018


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what `pip install ridgeline` brings: its requirements, and theirs, alone."""
    folder = tmp_path_factory.mktemp("light")
    names, found = ["ridgeline"], set[str]()
    while names:
        name = canonicalize_name(names.pop())
        if name in found:
            continue
        found.add(name)
        distribution = metadata.distribution(name)
        requirements = map(Requirement, distribution.requires or ())
        names += [r.name for r in requirements if r.marker is None or r.marker.evaluate()]
        if name == "ridgeline":
            folder.joinpath(name).symlink_to(SOURCES / name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}:
            link = folder / top
            if not link.exists() and not top.startswith(("__pycache__", "__editable__")):
                link.symlink_to(Path(str(distribution.locate_file(top))))
    assert not found & {"torch", "optuna", "sqlalchemy", "fastapi", "numpy", "scikit-learn"}
    return folder


def test_the_client_and_the_command_need_little(light: Path, tmp_path: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-S", *words],  # -S: nothing of what is installed here
            cwd=tmp_path,
            env={"PYTHONPATH": str(light), "RIDGELINE_URL": "http://127.0.0.1:1"},
            capture_output=True,
            text=True,
            check=False,
        )

    def command(*words: str) -> tuple[int, str]:
        done = run("-m", "ridgeline.service.cli", *words)
        return done.returncode, done.stderr or done.stdout

    assert run("-c", "from ridgeline import Client; Client('http://127.0.0.1:1')").returncode == 0
    assert command("--version")[0] == 0
    spec = tmp_path / "study.yaml"
    spec.write_text(
        "name: s\ntask: {name: mlp, dataset: digits}\nsampler: {name: random}\n"
        "space: {dropout: {type: float, low: 0, high: 0.5}}\nbudget: {trials: 1}\n"
    )
    for words in (["studies"], ["run", str(spec)]):
        status, told = command(*words)
        assert status == 1, told
        assert told.startswith("ridgeline: cannot reach http://127.0.0.1:1"), told
    for words, extra in (
        (["serve"], "server"),
        (["doctor"], "server"),
        (["token", "list"], "server"),
        (["worker"], "worker"),
        (["up"], "worker"),
    ):
        status, told = command(*words)
        brings = rf'ridgeline: \w+ is not installed; pip install "ridgeline\[{extra}\]" brings it\n'
        assert status == 2
        assert re.fullmatch(brings, told), told
