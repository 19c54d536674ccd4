"""A running service for a campaign: its processes by id, its database, its undisturbed studies."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from sqlalchemy import text

from tests.chaos import oracle
from tests.chaos.campaign import Campaign, Tally
from tests.chaos.databases import database
from tests.chaos.disk import Disk, small_disk
from tests.chaos.processes import command, descendants, device_processes, is_alive, started_at
from tests.chaos.studies import study
from tests.deployment import Deployment

PATIENCE_SECONDS = 600.0
"""How long something may take that takes seconds on a quiet machine: no measure, but a bound."""

MIN_EPOCHS_PER_SECOND = 100.0
"""Of a study in training: a fifth of what two cores do that have nothing else to do."""

POLL_SECONDS = 0.01

SETTINGS = {
    # Short, as those of a killed worker wait for so long; a busy machine holds workers up, too.
    "RIDGELINE_LEASE_SECONDS": "5",
    "RIDGELINE_SYNC_INTERVAL_SECONDS": "0.2",
    "RIDGELINE_DEVICE_THREADS": "1",
    # Whoever kills at random kills some runs alone, again and again.  They are to be tried on.
    "RIDGELINE_MAX_CHARGES": "1000",
}

NUM_EPOCHS = 100
"""Of a run that trains for some seconds."""

LAG_SECONDS = 1.0
"""Reports come from a device process that started so long before: it takes longer to be ready, and
what the one before it has said is told by then."""

REGISTERED = "registered as worker"
"""What a worker logs when its devices are ready and the api knows it."""

_OF_STUDY = " JOIN rl_studies s ON s.id = r.study_id WHERE s.name = :study"

_MOMENTS = {
    "at_a_start": "SELECT SUM(r.attempt) FROM rl_runs r" + _OF_STUDY,
    "at_a_report": "SELECT COUNT(*) FROM rl_reports p JOIN rl_runs r ON r.id = p.run_id"
    + _OF_STUDY,
    "at_an_end": "SELECT COUNT(r.finished_at) FROM rl_runs r" + _OF_STUDY,
}
"""Counts that change at the boundary of a state."""

_T = TypeVar("_T")

log = logging.getLogger("chaos")


class Stuck(Exception):
    """Something that must come did not."""


class Rig:
    """The service of one campaign on one database.

    Attributes:
        home: of the logs.
        settings: of the service, as environment variables.
        disk: that the database lies on, where the campaign asks for one.
        workers: those that run.
        has_failed: whether something was lost, twice or wrong in it.
        num_epochs: of a run that is to train for long enough.
    """

    def __init__(
        self,
        campaign: Campaign,
        database_url: str,
        home: Path,
        undisturbed: dict[str, oracle.Values],
        num_epochs: int,
        disk: Disk | None,
    ) -> None:
        settings = {**SETTINGS, **campaign.settings}
        self.url = database_url
        self.home = home
        self.settings = settings
        self.disk = disk
        self.max_charges = int(settings["RIDGELINE_MAX_CHARGES"])
        self.deployment = Deployment(database_url, home, settings)
        self.client = self.deployment.client
        self.workers: list[subprocess.Popen[bytes]] = []
        self.has_failed = False
        self.num_epochs = num_epochs
        self._num_workers = campaign.num_workers
        self._undisturbed = undisturbed
        self._num_studies = 0

    # ---- processes

    def start(self) -> None:
        self.deployment.start_api()
        self.staff()

    def staff(self, num_workers: int | None = None) -> None:
        """Have as many workers, or as many as the campaign wants, all of them registered."""
        wanted = self._num_workers if num_workers is None else num_workers
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        for _ in range(wanted - len(self.workers)):
            self.hire()
        for worker in self.workers:
            self.wait_for_log(worker, REGISTERED, 0)

    def hire(self, *args: str) -> subprocess.Popen[bytes]:
        """Start one more worker, or what `args` name in its place, without waiting for it."""
        worker = self.deployment.spawn_worker(*args)
        self.workers.append(worker)
        return worker

    def kill(self, worker: subprocess.Popen[bytes]) -> list[int]:
        """SIGKILL; the processes that it leaves behind, which are to end by themselves."""
        left = descendants(worker.pid)
        self.deployment.kill(worker)
        if worker in self.workers:
            self.workers.remove(worker)
        return left

    def has_registered(self, worker: subprocess.Popen[bytes]) -> bool:
        return REGISTERED in self.log(worker)

    def name(self, worker: subprocess.Popen[bytes]) -> str:
        return self.deployment.name(worker)

    def log(self, worker: subprocess.Popen[bytes]) -> str:
        return self.deployment.log(worker).read_text(errors="replace")

    def wait_for_log(self, worker: subprocess.Popen[bytes], words: str, size: int) -> float:
        """Wait for words in a worker's log past its first `size` characters; when it wrote them.

        In seconds since the epoch, as the log has them.
        """

        def line() -> str | None:
            new = self.log(worker)[size:]
            before, found, after = new.partition(words)
            return before.rpartition("\n")[2] if found and "\n" in after else None

        stamp = self.wait_for(line, f"a worker to log: {words}").split(" ")[:2]
        return datetime.strptime(" ".join(stamp), "%Y-%m-%d %H:%M:%S,%f").timestamp()

    # ---- studies

    def post(self, spec: Mapping[str, Any]) -> str:
        """Post a study under a new name, which is returned."""
        self._num_studies += 1
        name = f"{spec['name']}-{os.getpid()}-{self._num_studies}"
        self.client.create_study({**spec, "name": name})
        return name

    def has_ended(self, name: str) -> bool:
        rows = self.ask("SELECT finished_at FROM rl_studies WHERE name = :name", name=name)
        return rows[0][0] is not None

    def wait_until_quiet(self, name: str, *, patience: float = PATIENCE_SECONDS) -> None:
        """Wait for the study to end; one that does not is for the oracle to see."""
        try:
            self.wait_for(
                lambda: self.has_ended(name),
                f"the study {name} to end",
                every=0.1,
                patience=patience,
            )
        except Stuck as exc:
            log.error("%s", exc)

    def undisturbed(self, spec: Mapping[str, Any]) -> oracle.Values:
        """What the study comes to when nothing happens; trained once on each kind of database."""
        key = json.dumps({**spec, "name": ""}, sort_keys=True)
        if key not in self._undisturbed:
            name = self.post(spec)
            self.wait_for(
                lambda: self.has_ended(name),
                "the undisturbed study to end",
                every=0.1,
                patience=_patience(spec),
            )
            self._undisturbed[key] = self.outcomes(name)
        return self._undisturbed[key]

    @contextmanager
    def disturbed(self, kind: str) -> Iterator[tuple[str, Tally]]:
        """A study that faults are injected into within the block, and their tally.

        After the block the study is to end as if nothing had happened.
        """
        spec = study(kind, epochs=self.num_epochs)
        self.undisturbed(spec)
        name, tally = self.post(spec), Tally()
        yield name, tally
        tally.add(self.check_undisturbed(name, spec))

    def outcomes(self, name: str) -> oracle.Values:
        with closing(oracle.reading(self.url)) as connection:
            return oracle.outcomes(connection, name)

    def check_undisturbed(self, name: str, spec: Mapping[str, Any]) -> Tally:
        """Wait for the study to end; what is lost, twice or wrong in it, or not as undisturbed."""
        self.wait_until_quiet(name, patience=_patience(spec))
        return self.check(name, spec["budget"]["trials"], self.undisturbed(spec))

    def check(self, name: str, num_trials: int, values: oracle.Values | None = None) -> Tally:
        """The same where only some values, or none, are known."""
        self.wait_until_quiet(name)
        return oracle.check(
            self.url, name, num_trials=num_trials, max_charges=self.max_charges, values=values or {}
        )

    # ---- what is going on

    def training(self) -> dict[str, dict[tuple[int, int], int]]:
        """By name of a worker: the runs that it trains, by id and attempt, and their charges."""
        found: dict[str, dict[tuple[int, int], int]] = {}
        for name, run, attempt, charges in self.ask(
            "SELECT w.name, r.id, r.attempt, r.charges FROM rl_runs r"
            " JOIN rl_workers w ON w.id = r.worker_id"
            " WHERE r.state = 'RUNNING' AND r.program IS NOT NULL AND w.state = 'LIVE'"
        ):
            found.setdefault(name, {})[run, attempt] = charges
        return found

    def still_running(self, runs: Iterable[tuple[int, int]]) -> bool:
        """Whether one of these attempts has not come to an end."""
        running = {
            (run, attempt)
            for run, attempt in self.ask("SELECT id, attempt FROM rl_runs WHERE state = 'RUNNING'")
        }
        return not running.isdisjoint(runs)

    def busy_workers(self) -> list[subprocess.Popen[bytes]]:
        training = self.training()
        return [worker for worker in self.workers if self.name(worker) in training]

    def num_held(self, worker: subprocess.Popen[bytes]) -> int:
        """How many runs a worker has been given and not given back."""
        ((number,),) = self.ask(
            "SELECT COUNT(*) FROM rl_runs r JOIN rl_workers w ON w.id = r.worker_id"
            " WHERE r.state = 'RUNNING' AND w.name = :name",
            name=self.name(worker),
        )
        return int(number)

    def wait_until_one_trains(self, study: str, random: Random) -> subprocess.Popen[bytes] | None:
        """A worker whose device process trains, not one that has just been started anew.

        None where the study is over.
        """

        def at_work() -> list[subprocess.Popen[bytes]]:
            reported_at = dict(
                self.ask(
                    "SELECT w.name, MAX(p.reported_at) FROM rl_reports p"
                    " JOIN rl_runs r ON r.id = p.run_id JOIN rl_workers w ON w.id = r.worker_id"
                    " WHERE r.state = 'RUNNING' AND w.state = 'LIVE' GROUP BY w.name"
                )
            )
            return [
                worker
                for worker in self.workers
                for device in device_processes(worker.pid)
                if reported_at.get(self.name(worker), 0) > started_at(device) + LAG_SECONDS
            ]

        def candidates() -> list[subprocess.Popen[bytes] | None]:
            return [None] if self.has_ended(study) else [*at_work()]

        return random.choice(self.wait_for(candidates, "a worker to train"))

    def wait_for_a_worker(
        self, study: str, random: Random, tally: Tally
    ) -> subprocess.Popen[bytes] | None:
        """A worker, one with runs if there is one, at a moment; None where the study is over."""
        self.wait_for(lambda: self.training() or self.has_ended(study), "a worker to train")
        if self.has_ended(study):
            return None
        tally.count(self.wait_for_moment(study, random))
        return random.choice(self.busy_workers() or self.workers)

    def wait_for_moment(self, study: str, random: Random) -> str:
        """Wait for a time at random, or for something to happen in the study; which it was."""
        moment = random.choice(("any_moment", *_MOMENTS))
        if moment == "any_moment":
            time.sleep(random.uniform(0.0, 1.0))
            return moment

        def count() -> int:
            ((number,),) = self.ask(_MOMENTS[moment], study=study)
            return int(number or 0)

        before = count()
        self.wait_for(lambda: count() != before or self.has_ended(study), moment, every=0.002)
        return moment

    def ask(self, statement: str, **values: Any) -> list[Any]:
        """Rows of the database, read-only."""
        with closing(oracle.reading(self.url)) as connection:
            return list(connection.execute(text(statement), values))

    # ---- waiting

    def wait_for(
        self,
        what: Callable[[], _T | None],
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
            commands = ", ".join(f"{pid} ({command(pid).strip()[:200]})" for pid in left)
            tally.problems.append(f"outlived theirs by {seconds:g} s: {commands}")
        for pid in left:
            os.kill(pid, signal.SIGKILL)


@contextmanager
def running(
    campaign: Campaign,
    kind: str,
    undisturbed: dict[str, oracle.Values],
    *,
    num_epochs: int = NUM_EPOCHS,
) -> Iterator[Rig]:
    """The service for a campaign, on a fresh database of this kind; its logs stay if it failed."""
    home = Path(tempfile.mkdtemp(prefix="rl-chaos-"))
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(home)) if campaign.small_disk else None
        url = stack.enter_context(database(kind, home if disk is None else disk.folder))
        rig = Rig(campaign, url, home, undisturbed, num_epochs, disk)
        stack.callback(rig.deployment.close)
        rig.start()
        yield rig
    if rig.has_failed:
        log.error("the logs are in %s", home)
    else:
        shutil.rmtree(home)


def _patience(spec: Mapping[str, Any]) -> float:
    """Seconds to wait for a study to end."""
    num_epochs: int = spec["budget"]["trials"] * spec["budget"]["epochs"]
    return PATIENCE_SECONDS + num_epochs / MIN_EPOCHS_PER_SECOND
