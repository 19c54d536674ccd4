"""The tables, prefix `rl_`: the truth about every study, trial and run.

The invariants that must survive any bug in Python stand here as constraints.  Times are seconds
since the epoch (UTC) by the database's own clock.  `revision` is the study's counter at the last
change of the row: event ids, incremental history, projection order and "what the sampler could see"
are all this one integer.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from ridgeline.service.lifecycle import FailReason, RunState, StudyState, TrialState

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

_Id = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER is a rowid alias on SQLite
_Time = Float(53)


def _one_of(column: str, states: type[StudyState | TrialState | RunState | FailReason]) -> str:
    return f"{column} IN ({', '.join(repr(state.value) for state in states)})"


_CONFIRMS = "origin = 'confirmation' AND (reason IS NULL OR reason <> 'cancelled')"

studies = Table(
    "rl_studies",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("owner", String(32), comment="id of the token that created it"),
    Column("spec", JSON, nullable=False),
    Column(
        "past_spaces",
        JSON,
        nullable=False,
        server_default="[]",
        comment="each of the trials created before a revision",
    ),
    Column("state", String(16), nullable=False),
    Column("reason", Text, comment="why it failed"),
    Column("stopping", Boolean, nullable=False, comment="no new trials; running ones finish"),
    Column(
        "archived", Boolean, nullable=False, server_default=false(), comment="left out of lists"
    ),
    Column("priority", Integer, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("state_revision", BigInteger, nullable=False, comment="of the study's own last change"),
    Column("next_number", Integer, nullable=False, comment="number of the next trial"),
    Column("num_enqueued", Integer, nullable=False, comment="trials not chosen by the sampler"),
    Column(
        "num_repeats",
        Integer,
        nullable=False,
        server_default="0",
        comment="trials that train others again, on top of the budget",
    ),
    Column("num_open", Integer, nullable=False, comment="trials WAITING or RUNNING"),
    Column("device_seconds", _Time, nullable=False),
    Column("virtual_seconds", _Time, nullable=False, comment="device time, for fair sharing"),
    Column("deadline_at", _Time, comment="no new trials from here on"),
    Column(
        "ungranted_seconds",
        _Time,
        comment="that the deadline comes from, until the timekeeper has set it",
    ),
    Column("data_fingerprint", String(64), comment="of the data set its runs train on"),
    Column("optuna_study_id", Integer, comment="its row in Optuna's tables"),
    Column("projected_revision", BigInteger, nullable=False),
    Column("projection_error", Text, comment="set while the copy in Optuna's tables is stale"),
    Column("created_at", _Time, nullable=False),
    Column("started_at", _Time),
    Column("finished_at", _Time),
    CheckConstraint(_one_of("state", StudyState), name="state"),
    CheckConstraint("num_open >= 0 AND next_number >= num_open", name="counts"),
    CheckConstraint("projected_revision <= revision", name="projection"),
    CheckConstraint(
        "NOT archived OR state IN ('COMPLETED', 'FAILED', 'CANCELLED')", name="archived"
    ),
    Index(None, "state", "priority"),
)

deleted_studies = Table(
    "rl_deleted_studies",
    metadata,
    Column("study_id", _Id, primary_key=True, autoincrement=False),
    Column("name", String(128), nullable=False),
    Column("optuna_study_id", Integer, comment="of the copy that went with it"),
    Column("last_run_id", _Id, nullable=False, comment="the highest that any run had by then"),
    Column("deleted_at", _Time, nullable=False),
)
"""What is left of deleted studies: the ids that no later one may have."""

comparisons = Table(
    "rl_comparisons",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("owner", String(32), comment="id of the token that created it"),
    Column("spec", JSON, nullable=False),
    Column("told_to", String(16), nullable=False, comment="what people told it last"),
    Column("created_at", _Time, nullable=False),
    CheckConstraint("told_to IN ('run', 'pause', 'cancel')", name="told_to"),
)

comparison_studies = Table(
    "rl_comparison_studies",
    metadata,
    Column("study_id", ForeignKey(studies.c.id), primary_key=True, autoincrement=False),
    Column("comparison_id", ForeignKey(comparisons.c.id), nullable=False),
    Column("arm", String(48), nullable=False),
    Column(
        "winner", Integer, comment="the trial of the search that it trains again; none: the search"
    ),
    Column(
        "num_seen", Integer, comment="trials the search had when its winner was last looked for"
    ),
    CheckConstraint("winner IS NULL OR num_seen IS NULL", name="search_or_fresh"),
    UniqueConstraint("comparison_id", "arm", "winner"),
    Index(
        None,
        "comparison_id",
        "arm",
        unique=True,
        sqlite_where=text("winner IS NULL"),
        postgresql_where=text("winner IS NULL"),
    ),
)
"""The studies of comparisons: of each arm one search, and one for each winner that it has had."""

upgrades = Table(
    "rl_upgrades",
    metadata,
    Column("revision", String(32), primary_key=True, comment="of the schema"),
    Column("program", String(64), nullable=False, comment="version that brought it here first"),
)
"""For programs that are too old for the schema: which version knows it."""

trials = Table(
    "rl_trials",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("study_id", ForeignKey(studies.c.id), nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(16)),
    Column("config", JSON, nullable=False),
    Column(
        "origin", String(16), nullable=False, comment="sampler, enqueued, racing or confirmation"
    ),
    Column(
        "given",
        JSON(none_as_null=True),
        comment="names of the parameters of an enqueued trial that a person gave",
    ),
    Column("grid_cell", BigInteger),
    Column("retry_of", Integer, comment="number of the failed trial that it tries again"),
    Column("repeats", Integer, comment="number of the trial that it trains again by other seeds"),
    Column("sampler", String(32), comment="name and version, to derive the suggestion again"),
    Column("sampler_seed", BigInteger),
    Column("seen_revision", BigInteger, comment="the history the sampler saw"),
    Column("value", _Time, comment="mean of the runs' values"),
    Column("revision", BigInteger, nullable=False),
    Column("created_revision", BigInteger, nullable=False),
    Column("finished_revision", BigInteger),
    Column("optuna_trial_id", Integer, comment="its row in Optuna's tables"),
    Column("created_at", _Time, nullable=False),
    Column("started_at", _Time),
    Column("finished_at", _Time),
    UniqueConstraint("study_id", "number"),
    UniqueConstraint("study_id", "grid_cell"),
    CheckConstraint(_one_of("state", TrialState), name="state"),
    CheckConstraint(_one_of("reason", FailReason), name="reason"),
    CheckConstraint("(state = 'FAIL') = (reason IS NOT NULL)", name="failed_for_a_reason"),
    CheckConstraint(
        "(state IN ('WAITING', 'RUNNING')) = (finished_revision IS NULL)", name="finished"
    ),
    CheckConstraint("state <> 'COMPLETE' OR value IS NOT NULL", name="complete_has_a_value"),
    Index(None, "study_id", "revision"),
    Index(None, "study_id", "state", "value", "number"),
    Index(None, "study_id", "retry_of", unique=True),
    Index(
        None,
        "study_id",
        "repeats",
        unique=True,
        sqlite_where=text(_CONFIRMS),
        postgresql_where=text(_CONFIRMS),
    ),
)

sources = Table(
    "rl_sources",
    metadata,
    Column("study_id", ForeignKey(studies.c.id), primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False, comment="in the spec"),
    Column("study", String(128), nullable=False, comment="its name at that time"),
    Column("revision", BigInteger, nullable=False, comment="at which its trials were taken"),
    Column("parameters", JSON, nullable=False, comment="those in common"),
    Column("num_trials", Integer, nullable=False),
    Column("fingerprint", String(64), nullable=False, comment="of what was taken"),
    Column("trials", JSON, nullable=False),
)
"""What studies have taken over of others, which may be gone by now; never changed."""

workers = Table(
    "rl_workers",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("owner", String(32)),
    Column("state", String(16), nullable=False),
    Column("sync_seq", BigInteger, nullable=False),
    Column("devices", JSON, nullable=False),
    Column("tasks", JSON, nullable=False),
    Column("datasets", JSON, nullable=False),
    Column(
        "idle_slots",
        JSON,
        nullable=False,
        server_default="{}",
        comment="by device: slots of packs in training that no run is in",
    ),
    Column(
        "restarts",
        JSON,
        nullable=False,
        server_default="{}",
        comment="by device: how often its process was started anew",
    ),
    Column("registered_at", _Time, nullable=False),
    Column("seen_at", _Time, nullable=False),
    Column("lease_expires_at", _Time, nullable=False),
    CheckConstraint("state IN ('LIVE', 'LOST', 'GONE')", name="state"),
)

runs = Table(
    "rl_runs",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("study_id", ForeignKey(studies.c.id), nullable=False),
    Column("trial_id", ForeignKey(trials.c.id), nullable=False),
    Column("replicate", Integer, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", String(16)),
    Column("error", Text),
    Column("log_tail", Text),
    Column("attempt", Integer, nullable=False, comment="times handed out; fences late writers"),
    Column("charges", Integer, nullable=False, comment="failures blamed on this run alone"),
    Column("worker_id", ForeignKey(workers.c.id)),
    Column("device", String(64)),
    Column("client_id", String(128), comment="of the external program it was handed to"),
    Column("lease_seconds", _Time, comment="only of runs trained by external programs"),
    Column("lease_expires_at", _Time, comment="likewise"),
    Column("program", String(200), comment="identity of the program that trains it, for life"),
    Column("data_fingerprint", String(64)),
    Column("value", _Time, comment="the objective at the epoch whose weights are kept"),
    Column("kept_epoch", Integer),
    Column("metrics", JSON, comment="at the kept epoch; test metrics of the kept weights"),
    Column(
        "measures",
        JSON(none_as_null=True),
        comment="what can be seen of the kept weights; of complete runs",
    ),
    Column("pruned_by_version", BigInteger, comment="of the pruning rules that ended it"),
    Column("device_seconds", _Time, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("started_at", _Time),
    Column("finished_at", _Time),
    UniqueConstraint("trial_id", "replicate"),
    CheckConstraint(_one_of("state", RunState), name="state"),
    CheckConstraint(_one_of("reason", FailReason), name="reason"),
    CheckConstraint("(state = 'FAIL') = (reason IS NOT NULL)", name="failed_for_a_reason"),
    CheckConstraint("state <> 'RUNNING' OR attempt > 0", name="running_was_handed_out"),
    CheckConstraint("state <> 'COMPLETE' OR value IS NOT NULL", name="complete_has_a_value"),
    CheckConstraint("pruned_by_version IS NULL OR state = 'PRUNED'", name="pruned_by_rules"),
    Index(None, "study_id", "revision"),
    Index(None, "study_id", "state"),
    Index(None, "worker_id", "state"),
    # The leases that last now, of which there are few among all runs that ever were.
    Index(
        None,
        "lease_expires_at",
        sqlite_where=text("lease_expires_at IS NOT NULL"),
        postgresql_where=text("lease_expires_at IS NOT NULL"),
    ),
)

reports = Table(
    "rl_reports",
    metadata,
    Column("run_id", ForeignKey(runs.c.id), primary_key=True),
    Column("epoch", Integer, primary_key=True, comment="counted from 1"),
    Column("study_id", ForeignKey(studies.c.id), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("reported_at", _Time, nullable=False),
    CheckConstraint("epoch >= 1", name="epoch"),
    Index(None, "study_id", "revision"),
)

artifacts = Table(
    "rl_artifacts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("run_id", ForeignKey(runs.c.id), comment="none once its study is deleted"),
    Column("attempt", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("epoch", Integer, comment="after which a checkpoint was made"),
    Column("program", String(200), comment="in which alone a checkpoint goes on"),
    Column("num_bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("location", Text, nullable=False, unique=True, comment="key in the artifact store"),
    Column("created_at", _Time, nullable=False),
    CheckConstraint("kind IN ('checkpoint', 'weights', 'log')", name="kind"),
    CheckConstraint("state IN ('DRAFT', 'WHOLE', 'DOOMED')", name="state"),
    CheckConstraint("run_id IS NOT NULL OR state <> 'WHOLE'", name="of_a_run"),
    CheckConstraint(
        "kind <> 'checkpoint' OR (epoch >= 1 AND program IS NOT NULL)", name="checkpoint"
    ),
    Index(None, "run_id", "kind"),
    Index(
        None,
        "state",
        "created_at",
        sqlite_where=text("state <> 'WHOLE'"),
        postgresql_where=text("state <> 'WHOLE'"),
    ),
)
"""Files in the artifact store.  A row is there before its file and until after it:

DRAFT, while the file arrives → WHOLE → DOOMED, until the file is deleted; or DRAFT → DOOMED.
Only its upload, or whoever finds that it is over, dooms a draft: until then its file may come.
"""

tokens = Table(
    "rl_tokens",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("secret_sha256", String(64), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("note", String(256), comment="what people wrote to tell it from others"),
    Column("created_at", _Time, nullable=False),
    Column("revoked_at", _Time),
)

idempotency_keys = Table(
    "rl_idempotency_keys",
    metadata,
    Column("scope", String(200), primary_key=True, comment="token and route"),
    Column("key", String(200), primary_key=True),
    Column("body_sha256", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("answer", JSON, nullable=False),
    Column("created_at", _Time, nullable=False),
    Index(None, "created_at"),
)
