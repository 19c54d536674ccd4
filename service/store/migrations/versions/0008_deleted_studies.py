"""what is left of deleted studies: the ids that no later one may have

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "rl_deleted_studies",
        sa.Column("study_id", _Id, autoincrement=False, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("optuna_study_id", sa.Integer(), comment="of the copy that went with it"),
        sa.Column(
            "last_run_id", _Id, nullable=False, comment="the highest that any run had by then"
        ),
        sa.Column("deleted_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("study_id", name=op.f("pk_rl_deleted_studies")),
    )


def downgrade() -> None:
    op.drop_table("rl_deleted_studies")
