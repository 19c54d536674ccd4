"""Folders whose names would change a URL: each is the home of one database, its own."""

from __future__ import annotations

import os
from pathlib import Path

import optuna
import pytest
from sqlalchemy.engine import make_url

from ridgeline.service.dashboard import server as dashboard
from ridgeline.service.settings import Settings
from ridgeline.service.store.engine import read_only
from tests.cli.conftest import Ridgeline

NAMES = ("exp?1", "exp?2", "a#b", "a%20b", "a%b", "ü", "two words", "a+b", "{x}", "a&b=c;d", "@:[")


@pytest.mark.parametrize("name", NAMES)
def test_the_database_lies_in_its_home(name: str, ridgeline: Ridgeline, tmp_path: Path) -> None:
    home = tmp_path / name
    assert ridgeline("migrate", home=str(home)).stdout == "The database is ready.\n"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert {path.name for path in home.iterdir()} == {"ridgeline.db", "ridgeline.db.migrate"}

    url = Settings(_env_file=None, home=home).resolved_database_url
    assert make_url(url).database == str(home / "ridgeline.db")
    assert optuna.get_all_study_summaries(url.replace("{", "{{").replace("}", "}}")) == []
    dashboard.wait_for_tables(read_only(make_url(url)), seconds=0)


def test_homes_that_differ_behind_a_question_mark_share_nothing(
    ridgeline: Ridgeline, tmp_path: Path
) -> None:
    for name in ("exp?1", "exp?2"):
        home = str(tmp_path / name)
        assert ridgeline("token", "create", name[-1], "--scope", "read", home=home).exit_code == 0
    listed = ridgeline("token", "list", home=str(tmp_path / "exp?1")).stdout.splitlines()
    assert len(listed) == 2  # the head, and one token


def test_a_home_that_no_url_can_hold(ridgeline: Ridgeline) -> None:
    result = ridgeline("migrate", home=os.fsdecode(b"\xff"))
    assert result.exit_code == 2
    assert result.stderr == (
        "ridgeline: RIDGELINE_HOME: must be a path in UTF-8, since it becomes part of a URL\n"
    )
