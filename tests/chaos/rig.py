"""A running service for a campaign: its processes by id, its database, its undisturbed studies."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import text

from service.resources import Study
from tests.chaos import oracle
from tests.chaos.campaign import Campaign, Tally
from tests.chaos.databases import database
from tests.chaos.processes import descendants, is_alive
from tests.deployment import Deployment

PATIENCE_SECONDS = 240.0
"""How long something may take that takes seconds on a quiet machine."""

POLL_SECONDS = 0.01

SETTINGS = {
    "RIDGELINE_LEASE_SECONDS": "2",
    "RIDGELINE_SYNC_INTERVAL_SECONDS": "0.2",
    "RIDGELINE_DEVICE_THREADS": "1",
    # Whoever kills at random kills some runs alone, again and again.  They are to be tried on.
    "RIDGELINE_MAX_CHARGES": "1000",
}

_T = TypeVar("_T")

log = logging.getLogger("chaos")


class Stuck(Exception):
    """Something that must come did not."""


class Rig:
    """The service of one campaign on one database.

    Attributes:
        workers: those that run.
    """

    def __init__(
        self,
        campaign: Campaign,
        database_url: str,
        home: Path,
        undisturbed: dict[str, oracle.Values],
    ) -> None:
        settings = {**SETTINGS, **campaign.settings}
        self.url = database_url
        self.max_charges = int(settings["RIDGELINE_MAX_CHARGES"])
        self.hang_seconds = float(settings.get("RIDGELINE_HANG_SECONDS", "300"))
        self.lease_seconds = float(settings["RIDGELINE_LEASE_SECONDS"])
        self.deployment = Deployment(database_url, home, settings)
        self.client = self.deployment.client
        self.workers: list[subprocess.Popen[bytes]] = []
        self._num_workers = campaign.num_workers
        self._undisturbed = undisturbed
        self._num_studies = 0

    # ---- processes

    def start(self) -> None:
        self.deployment.start_api()
        self.staff()

    def staff(self) -> None:
        """Have as many workers as the campaign wants, all of them registered."""
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        for worker in [self.hire() for _ in range(self._num_workers - len(self.workers))]:
            is_registered = partial(self.is_registered, worker)
            self.wait_for(is_registered, "a worker to register")

    def hire(self) -> subprocess.Popen[bytes]:
        """Start one more worker, without waiting for it."""
        worker = self.deployment.spawn_worker()
        self.workers.append(worker)
        return worker

    def is_registered(self, worker: subprocess.Popen[bytes]) -> bool:
        return "registered as worker" in self.log(worker)

    def kill(self, worker: subprocess.Popen[bytes]) -> list[int]:
        """SIGKILL; the processes that it leaves behind, which are to end by themselves."""
        left = descendants(worker.pid)
        self.deployment.kill(worker)
        if worker in self.workers:
            self.workers.remove(worker)
        return left

    def log(self, worker: subprocess.Popen[bytes]) -> str:
        return self.deployment.log(worker).read_text(errors="replace")

    # ---- studies

    def post(self, spec: Mapping[str, Any]) -> str:
        """Post a study under a new name, which is returned."""
        self._num_studies += 1
        name = f"{spec['name']}-{os.getpid()}-{self._num_studies}"
        self.client.create_study({**spec, "name": name})
        return name

    def study(self, name: str) -> Study:
        return self.client.study(name)

    def has_ended(self, name: str) -> bool:
        return self.study(name).finished_at is not None

    def wait_until_quiet(self, name: str) -> None:
        """Wait for the study to end; one that does not is for the oracle to see."""
        try:
            self.wait_for(lambda: self.has_ended(name), f"the study {name} to end", every=0.1)
        except Stuck as exc:
            log.error("%s", exc)

    def undisturbed(self, spec: Mapping[str, Any]) -> oracle.Values:
        """What the study comes to when nothing happens; trained once on each kind of database."""
        key = json.dumps({**spec, "name": ""}, sort_keys=True)
        if key not in self._undisturbed:
            name = self.post(spec)
            self.wait_until_quiet(name)
            self._undisturbed[key] = self.outcomes(name)
        return self._undisturbed[key]

    def outcomes(self, name: str) -> oracle.Values:
        with closing(oracle.reading(self.url)) as connection:
            return oracle.outcomes(connection, name)

    def check(self, name: str, spec: Mapping[str, Any], *, num_trials: int | None = None) -> Tally:
        """Wait for the study to end; what is lost, twice or wrong in it.

        Args:
            num_trials: left out, those of the spec, with the values of the undisturbed study.
        """
        self.wait_until_quiet(name)
        return oracle.check(
            self.url,
            name,
            num_trials=spec["budget"]["trials"] if num_trials is None else num_trials,
            max_charges=self.max_charges,
            values=self.undisturbed(spec) if num_trials is None else None,
        )

    def ask(self, statement: str, **values: Any) -> list[Any]:
        """Rows of the database, read-only."""
        with closing(oracle.reading(self.url)) as connection:
            return list(connection.execute(text(statement), values))

    # ---- waiting

    def wait_for(
        self,
        what: Callable[[], _T],
        description: str,
        *,
        every: float = POLL_SECONDS,
        patience: float = PATIENCE_SECONDS,
    ) -> _T:
        """Wait until `what` is true; what it then is.

        Raises:
            Stuck: it did not become true.
        """
        deadline = time.monotonic() + patience
        while not (value := what()):
            if time.monotonic() > deadline:
                raise Stuck(f"waited {patience:g} s in vain for {description}")
            time.sleep(every)
        return value

    def count_orphans(self, pids: list[int], tally: Tally, *, seconds: float = 5.0) -> None:
        """Processes that still live so long after the one that started them was killed."""
        deadline = time.monotonic() + seconds
        while (left := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        tally.count("orphans", len(left))
        if left:
            tally.problems.append(f"{len(left)} processes outlived theirs by {seconds:g} s")
        for pid in left:
            os.kill(pid, signal.SIGKILL)


@contextmanager
def running(campaign: Campaign, kind: str, undisturbed: dict[str, oracle.Values]) -> Iterator[Rig]:
    """The service for a campaign, on a fresh database of this kind."""
    with tempfile.TemporaryDirectory(prefix="rl-chaos-") as folder:
        home = Path(folder)
        with database(kind, home) as url:
            rig = Rig(campaign, url, home, undisturbed)
            try:
                rig.start()
                yield rig
            finally:
                rig.deployment.close()
