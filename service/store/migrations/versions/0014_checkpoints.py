"""which artifacts are whole, and the program of a checkpoint

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _drop()  # nothing has ever written to it
    op.create_table(
        "rl_artifacts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("run_id", _ID, nullable=True, comment="none once its study is deleted"),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("epoch", sa.Integer(), comment="after which a checkpoint was made"),
        sa.Column("program", sa.String(200), comment="in which alone a checkpoint goes on"),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("location", sa.Text(), nullable=False, comment="key in the artifact store"),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.CheckConstraint(
            "kind IN ('checkpoint', 'weights', 'log')", name=op.f("ck_rl_artifacts_kind")
        ),
        sa.CheckConstraint(
            "state IN ('DRAFT', 'WHOLE', 'DOOMED')", name=op.f("ck_rl_artifacts_state")
        ),
        sa.CheckConstraint(
            "run_id IS NOT NULL OR state <> 'WHOLE'", name=op.f("ck_rl_artifacts_of_a_run")
        ),
        sa.CheckConstraint(
            "kind <> 'checkpoint' OR (epoch >= 1 AND program IS NOT NULL)",
            name=op.f("ck_rl_artifacts_checkpoint"),
        ),
        sa.ForeignKeyConstraint(["run_id"], ["rl_runs.id"], name=op.f("fk_rl_artifacts_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rl_artifacts")),
        sa.UniqueConstraint("location", name=op.f("uq_rl_artifacts_location")),
    )
    op.create_index(op.f("ix_rl_artifacts_run_id_kind"), "rl_artifacts", ["run_id", "kind"])
    op.create_index(
        op.f("ix_rl_artifacts_state_created_at"),
        "rl_artifacts",
        ["state", "created_at"],
        sqlite_where=sa.text("state <> 'WHOLE'"),
        postgresql_where=sa.text("state <> 'WHOLE'"),
    )


def downgrade() -> None:
    op.drop_index(op.f("ix_rl_artifacts_state_created_at"), table_name="rl_artifacts")
    _drop()
    op.create_table(
        "rl_artifacts",
        sa.Column("id", _ID, nullable=False),
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("epoch", sa.Integer()),
        sa.Column("num_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("location", sa.Text(), nullable=False, comment="key in the artifact store"),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.CheckConstraint(
            "kind IN ('checkpoint', 'weights', 'log')", name=op.f("ck_rl_artifacts_kind")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["rl_runs.id"], name=op.f("fk_rl_artifacts_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rl_artifacts")),
    )
    op.create_index(op.f("ix_rl_artifacts_run_id_kind"), "rl_artifacts", ["run_id", "kind"])


def _drop() -> None:
    op.drop_index(op.f("ix_rl_artifacts_run_id_kind"), table_name="rl_artifacts")
    op.drop_table("rl_artifacts")
