"""The database cannot write for a while: its disk is full, it is stopped, or somebody locks it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from random import Random

from sqlalchemy.engine import make_url

from tests.chaos.campaign import Tally, campaign
from tests.chaos.databases import postgres_server
from tests.chaos.program import Program
from tests.chaos.rig import Rig
from tests.chaos.studies import study

_HERE = Path(__file__).parent

_OUTAGES_A_PART = 5
_BUSY_SECONDS = 1.0
"""How long the api of these campaigns waits for a lock; it is 30 seconds in service."""

Outage = Callable[[], AbstractContextManager[None]]


@campaign("full-disk", target=20, num_workers=1, small_disk=True)
def fill_disks(rig: Rig, random: Random, count: int) -> Tally:
    """The disk fills up while a study trains and a program reports."""

    @contextmanager
    def outage() -> Iterator[None]:
        assert rig.disk is not None
        with rig.disk.full(room=random.randrange(300_000)):
            yield
        if not _is_sqlite(rig):
            server = postgres_server(rig.url)  # that cannot write its log ahead ends itself
            server.start()
            server.close()

    return _suffer(rig, random, count, "full-disk", outage)


@campaign("full-database", target=20, num_workers=1, databases=("sqlite",))
def fill_databases(rig: Rig, random: Random, count: int) -> Tally:
    """The same for those who cannot make a disk: the file may have no more pages."""
    mark = rig.home / "full"

    @contextmanager
    def outage() -> Iterator[None]:
        mark.touch()
        yield
        mark.unlink()

    _restart_api(rig, "bounded_api.py", str(mark))
    return _suffer(rig, random, count, "full-database", outage)


@campaign("database-restart", target=40, num_workers=1, databases=("postgresql",))
def restart_databases(rig: Rig, random: Random, count: int) -> Tally:
    """PostgreSQL is stopped, in good order or at once, and started again."""
    with closing(postgres_server(rig.url)) as server:

        @contextmanager
        def outage() -> Iterator[None]:
            server.stop("fast" if random.random() < 0.5 else "immediate")
            yield
            server.start()

        return _suffer(rig, random, count, "database-restart", outage)


@campaign("database-lock", target=20, num_workers=1, databases=("sqlite",))
def lock_databases(rig: Rig, random: Random, count: int) -> Tally:
    """Another process locks the file for longer than the api waits."""

    @contextmanager
    def outage() -> Iterator[None]:
        path = make_url(rig.url).database
        assert path is not None
        with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.execute("ROLLBACK")

    _restart_api(rig, "hasty_api.py", str(_BUSY_SECONDS))
    return _suffer(rig, random, count, "database-lock", outage)


def _suffer(rig: Rig, random: Random, count: int, name: str, outage: Outage) -> Tally:
    """Outages at random moments, each until a call was refused and a little longer."""
    tally = Tally()
    spec = study(name, trials=12, epochs=rig.num_epochs)
    rig.undisturbed(spec)
    posted = rig.post(spec)
    program = Program(rig)
    for _ in range(min(count, _OUTAGES_A_PART)):
        _wait_for_success(rig, program)
        time.sleep(random.uniform(0.0, 1.0))
        with outage():
            _wait_for_refusal(rig, program)
            time.sleep(random.uniform(0.0, 1.0))
        _wait_for_success(rig, program)
        tally.injected += 1
        if _is_sqlite(rig) and (found := rig.ask("PRAGMA integrity_check")) != [("ok",)]:
            tally.problems.append(f"integrity_check: {found}")
    tally.add(program.finish())
    tally.add(rig.check_undisturbed(posted, spec))
    return tally


def _wait_for_success(rig: Rig, program: Program) -> None:
    taken = program.taken
    rig.wait_for(lambda: program.taken > taken, "a call to be taken")


def _wait_for_refusal(rig: Rig, program: Program) -> None:
    refused = program.refused
    rig.wait_for(lambda: program.refused > refused, "a call to be refused")


def _is_sqlite(rig: Rig) -> bool:
    return rig.url.startswith("sqlite:")


def _restart_api(rig: Rig, script: str, argument: str) -> None:
    """Let another api take over: one that a script of this folder starts."""
    rig.deployment.kill(rig.deployment.api)
    rig.deployment.start_api(str(_HERE / script), argument)
