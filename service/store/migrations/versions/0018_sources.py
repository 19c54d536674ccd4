"""what studies have taken over of the trials of others

Revision ID: 0018
Revises: 0017
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "rl_sources",
        sa.Column("study_id", _ID, autoincrement=False, nullable=False),
        sa.Column(
            "position", sa.Integer(), autoincrement=False, nullable=False, comment="in the spec"
        ),
        sa.Column("study", sa.String(128), nullable=False, comment="its name at that time"),
        sa.Column(
            "revision", sa.BigInteger(), nullable=False, comment="at which its trials were taken"
        ),
        sa.Column("parameters", sa.JSON(), nullable=False, comment="those in common"),
        sa.Column("num_trials", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False, comment="of what was taken"),
        sa.Column("trials", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_id"], ["rl_studies.id"], name=op.f("fk_rl_sources_study_id")
        ),
        sa.PrimaryKeyConstraint("study_id", "position", name=op.f("pk_rl_sources")),
    )


def downgrade() -> None:
    op.drop_table("rl_sources")
