"""Each way in which a database can be wrong is told; a database that is right is not accused."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from ridgeline.service.store.session import Transaction
from tests.doctor.conftest import examined

STUDY = "(SELECT id FROM rl_studies WHERE name = '{}')"
TRIAL = f"(SELECT id FROM rl_trials WHERE study_id = {STUDY} AND number = {{}})"

DONE, OPEN, OWN = STUDY.format("done"), STUDY.format("open"), STUDY.format("own")
DONE_2, OPEN_0, OPEN_1 = TRIAL.format("done", 2), TRIAL.format("open", 0), TRIAL.format("open", 1)
RUNS_OF_2 = f"(SELECT id FROM rl_runs WHERE trial_id = {DONE_2})"
RUN_2 = f"(SELECT id FROM rl_runs WHERE trial_id = {DONE_2} AND replicate = 0)"
OPEN_RUN = f"(SELECT id FROM rl_runs WHERE trial_id = {OPEN_1} AND replicate = 1)"

BROKEN = {
    "a trial is gone": (
        [
            f"DELETE FROM rl_reports WHERE run_id IN {RUNS_OF_2}",
            f"DELETE FROM rl_runs WHERE trial_id = {DONE_2}",
            f"DELETE FROM rl_trials WHERE id = {DONE_2}",
        ],
        ("trial-numbers", "study done: no trial has the number 2, nor perhaps the next ones"),
    ),
    "the first trial is gone": (
        [f"UPDATE rl_trials SET number = 77 WHERE study_id = {DONE} AND number = 0"],
        ("trial-numbers", "study done: no trial has the number 0, nor perhaps the next ones"),
    ),
    "a number too high": (
        [f"UPDATE rl_trials SET number = 77 WHERE id = {DONE_2}"],
        ("trial-numbers", "study done: trials 77 have a number that was never given"),
    ),
    "the counter of open trials": (
        [f"UPDATE rl_studies SET num_open = 1 WHERE id = {DONE}"],
        ("counters", "study done: it counts its open trials wrong (counter/found: 1/0)"),
    ),
    "the counter of enqueued trials": (
        [f"UPDATE rl_studies SET num_enqueued = 3 WHERE id = {DONE}"],
        ("counters", "study done: it counts its enqueued trials wrong (counter/found: 3/0)"),
    ),
    "device seconds": (
        [f"UPDATE rl_studies SET device_seconds = 500 WHERE id = {DONE}"],
        (
            "device-time",
            "study done: its device seconds are not those of its runs (its own/theirs: 500.0/8.0)",
        ),
    ),
    "an open trial of an ended study": (
        [f"UPDATE rl_trials SET state = 'RUNNING', finished_revision = NULL WHERE id = {DONE_2}"],
        ("trial-states", "study done: trials 2 are open, and the study has ended"),
    ),
    "an open run of an ended study": (
        [f"UPDATE rl_runs SET state = 'RUNNING' WHERE id = {RUN_2}"],
        ("run-states", "study done: runs 2/0 are open, and the study has ended"),
    ),
    "a trial waits after it began": (
        [f"UPDATE rl_trials SET state = 'WAITING' WHERE id = {OPEN_0}"],
        ("trial-states", "study open: trials 0 wait, and runs of theirs were handed out"),
    ),
    "a trial runs before it began": (
        [f"UPDATE rl_runs SET attempt = 0, state = 'WAITING' WHERE trial_id = {OPEN_1}"],
        ("trial-states", "study open: trials 1 are RUNNING, and no run was handed out"),
    ),
    "a run of another study": (
        [f"UPDATE rl_runs SET study_id = {OPEN} WHERE id = {RUN_2}"],
        ("run-studies", "study open: runs 2/0 are of a trial that is gone or of another study"),
    ),
    "charges": (
        [f"UPDATE rl_runs SET charges = 9 WHERE id = {RUN_2}"],
        ("attempts", "study done: runs 2/0 have more charges than attempts, or less than none"),
    ),
    "a result without an attempt": (
        [f"UPDATE rl_runs SET attempt = 0 WHERE id = {RUN_2}"],
        ("attempts", "study done: runs 2/0 have ended and were never handed out"),
    ),
    "a run waits with a program": (
        [f"UPDATE rl_runs SET state = 'WAITING', program = 'p' WHERE id = {OPEN_RUN}"],
        ("run-states", "study open: runs 1/1 wait, and have a holder, a program or a result"),
    ),
    "a run that nobody holds": (
        [f"UPDATE rl_runs SET worker_id = NULL WHERE id = {OPEN_RUN}"],
        ("run-states", "study open: runs 1/1 are RUNNING, and nobody holds them"),
    ),
    "a run with a result before its end": (
        [f"UPDATE rl_runs SET value = 1 WHERE id = {OPEN_RUN}"],
        ("run-results", "study open: runs 1/1 failed or are RUNNING, and have a value"),
    ),
    "a worker that is gone": (
        ["UPDATE rl_workers SET state = 'LOST'"],
        ("leases", "study open: runs 0/1, 1/0, 1/1, 2/0 are RUNNING under a worker that is gone"),
    ),
    "a lease that nobody ended": (
        [
            "UPDATE rl_workers SET lease_expires_at = 7 WHERE state = 'LIVE'",
            "UPDATE rl_workers SET seen_at = 900000 WHERE state = 'LOST'",
        ],
        (
            "leases",
            "study open: runs 0/1, 1/0, 1/1, 2/0 are RUNNING under a lease that ended long before "
            "the last call of a worker",
        ),
    ),
    "a program that is gone": (
        [f"UPDATE rl_runs SET lease_expires_at = 7 WHERE study_id = {OWN} AND state = 'RUNNING'"],
        (
            "leases",
            "study own: runs 2/0 are RUNNING under a lease that ended long before the last call "
            "of a worker",
        ),
    ),
    "one revision twice": (
        [f"UPDATE rl_runs SET revision = 9 WHERE trial_id = {DONE_2}"],
        ("revisions", "study done: the revisions 9 are those of several changes"),
    ),
    "a revision to come": (
        [f"UPDATE rl_reports SET revision = 9000 WHERE run_id = {RUN_2} AND epoch = 2"],
        ("revisions", "study done: changes have the revisions 9000, which are past the study's"),
    ),
    "an end after the last change": (
        [f"UPDATE rl_trials SET finished_revision = revision + 1 WHERE id = {DONE_2}"],
        ("revisions", "study done: trials 2 begin or end at a revision past their last change"),
    ),
    "reports of another attempt": (
        [f"UPDATE rl_reports SET attempt = 3 WHERE run_id = {RUN_2} AND epoch = 2"],
        (
            "reports",
            "study done: runs 2/0 have reports of later attempts, or wait and have some past any "
            "checkpoint",
        ),
    ),
    "reports of a run that waits": (
        [f"UPDATE rl_runs SET state = 'WAITING' WHERE trial_id = {OPEN_1}"],
        (
            "reports",
            "study open: runs 1/0, 1/1 have reports of later attempts, or wait and have some past "
            "any checkpoint",
        ),
    ),
    "reports for another study": (
        [f"UPDATE rl_reports SET study_id = {OPEN} WHERE run_id = {RUN_2}"],
        ("reports", "study done: runs 2/0 have reports that are noted for another study"),
    ),
    "epochs out of order": (
        [f"UPDATE rl_reports SET revision = 0 WHERE run_id = {RUN_2} AND epoch = 2"],
        ("reports", "study done: runs 2/0 have told their epochs out of order"),
    ),
    "a kept epoch that was never reported": (
        [f"UPDATE rl_runs SET kept_epoch = 999 WHERE id = {RUN_2}"],
        ("reports", "study done: runs 2/0 have kept an epoch of which there is no report"),
    ),
    "a kept epoch before the last one": (
        [f"UPDATE rl_runs SET kept_epoch = 1 WHERE id = {RUN_2}"],
        (
            "kept-epochs",
            "study done: runs 2/0 have kept another epoch than the last one that is planned",
        ),
    ),
    "no reports any more": (
        [f"DELETE FROM rl_reports WHERE run_id = {RUN_2}"],
        ("reports", "study done: runs 2/0 have kept an epoch of which there is no report"),
    ),
    "a report too few": (
        [f"DELETE FROM rl_reports WHERE run_id = {RUN_2} AND epoch = 1"],
        ("reports", "study done: runs 2/0 have no reports of epochs before their last one"),
    ),
    "a run's metrics": (
        [f"UPDATE rl_runs SET metrics = '{{\"validation_accuracy\": 0.1}}' WHERE id = {RUN_2}"],
        (
            "run-values",
            "study done: runs 2/0 have other metrics than they told of their kept epoch",
        ),
    ),
    "a seed": (
        [f"UPDATE rl_runs SET seed = 1 WHERE id = {RUN_2}"],
        ("run-seeds", "study done: runs 2/0 have another seed than the spec implies"),
    ),
    "a configuration of nothing": (
        [f"UPDATE rl_trials SET config = '{{}}' WHERE id = {DONE_2}"],
        ("configs", "study done: trials 2 have a configuration that is not of the space"),
    ),
    "a configuration beyond the space": (
        [f"UPDATE rl_trials SET config = '{{\"learning_rate\": 99}}' WHERE id = {DONE_2}"],
        ("configs", "study done: trials 2 have a configuration that is not of the space"),
    ),
    "a retry of what did not fail": (
        [f"UPDATE rl_trials SET retry_of = 1 WHERE id = {DONE_2}"],
        ("retries", "study done: trials 2 try again what did not fail before them"),
    ),
    "a run too few": (
        [
            f"DELETE FROM rl_reports WHERE run_id = {RUN_2}",
            f"DELETE FROM rl_runs WHERE id = {RUN_2}",
        ],
        ("run-numbers", "study done: trials 2 do not have the runs that the spec plans"),
    ),
    "a trial's value": (
        [f"UPDATE rl_trials SET value = 0.125 WHERE id = {DONE_2}"],
        ("trial-ends", "study done: trials 2 stand otherwise than their runs imply"),
    ),
    "a trial's state": (
        [f"UPDATE rl_trials SET state = 'PRUNED' WHERE id = {DONE_2}"],
        ("trial-ends", "study done: trials 2 stand otherwise than their runs imply"),
    ),
    "a run's value": (
        [f"UPDATE rl_runs SET value = 0.125 WHERE id = {RUN_2}"],
        (
            "run-values",
            "study done: runs 2/0 have another value than they told of their kept epoch",
        ),
    ),
    "a value that is none": (
        [f"UPDATE rl_runs SET value = {{infinity}} WHERE id = {RUN_2}"],
        ("values", "rl_runs.value of the row 5 cannot be read as what belongs there"),
    ),
    "more trials than planned": (
        [f"UPDATE rl_studies SET next_number = 31 WHERE id = {OPEN}"],
        ("budget", "study open: it has more trials than its budget: 31 of 30"),
    ),
    "a study that should have ended": (
        [f"UPDATE rl_studies SET state = 'RUNNING' WHERE id = {DONE}"],
        ("study-state", "study done: its trials say that it should be COMPLETED"),
    ),
    "a spec that nobody can read": (
        [f"UPDATE rl_studies SET spec = '{{}}' WHERE id = {DONE}"],
        ("spec", "the specs of the studies with the ids 1 cannot be read"),
    ),
    "a study that ended early": (
        [f"UPDATE rl_studies SET state = 'COMPLETED' WHERE id = {OPEN}"],
        ("study-state", "study open: its trials say that it should be open"),
    ),
    "a token without a digest": (
        [
            "INSERT INTO rl_tokens (id, name, secret_sha256, scopes, created_at) "
            "VALUES ('0123456789abcdef', 'x', 'nonsense', '[\"read\"]', 0)"
        ],
        ("tokens", "the tokens 0123456789abcdef cannot be used as they are stored"),
    ),
    "a token for everything": (
        [
            "INSERT INTO rl_tokens (id, name, secret_sha256, scopes, created_at) "
            f"VALUES ('0123456789abcdef', 'x', '{'0' * 64}', '[\"all\"]', 0)"
        ],
        ("tokens", "the tokens 0123456789abcdef cannot be used as they are stored"),
    ),
    "an id of a deleted study": (
        [f"UPDATE rl_deleted_studies SET study_id = {DONE}"],
        ("deleted-studies", "the ids 1 are those of a study and of one that was deleted"),
    ),
    "an answer from the future": (
        [
            "INSERT INTO rl_idempotency_keys (scope, key, body_sha256, status, answer, created_at) "
            "VALUES ('s', 'k', 'b', 200, '{}', 9000000000)"
        ],
        (
            "idempotency-keys",
            "1 answers to keys are dated in the future, and so kept for longer than a day",
        ),
    ),
    "an index is gone": (
        ["DROP INDEX ix_rl_trials_study_id_revision"],
        (
            "schema",
            "its tables are not those of this version: add index ix_rl_trials_study_id_revision",
        ),
    ),
}


def test_nothing_is_wrong_after_all_that_happens(busy: Transaction) -> None:
    assert examined(busy) == []


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_broken_is_told(busy: Transaction, broken: str) -> None:
    statements, expected = BROKEN[broken]
    is_sqlite = busy.connection.dialect.name == "sqlite"
    for statement in statements:
        infinity = "9e999" if is_sqlite else "'infinity'"
        busy.connection.execute(text(statement.replace("{infinity}", infinity)))
    assert expected in examined(busy)


def test_workers_that_cannot_be_shown(busy: Transaction) -> None:
    first = busy.workers.all()[0].id
    busy.connection.execute(text(f"UPDATE rl_workers SET devices = '[{{}}]' WHERE id = '{first}'"))
    assert examined(busy) == [
        ("workers", f"the workers {first} cannot be shown as they are stored")
    ]
