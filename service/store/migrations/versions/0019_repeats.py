"""trials that train others again by other seeds

Revision ID: 0019
Revises: 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_CONFIRMS = sa.text("origin = 'confirmation' AND (reason IS NULL OR reason <> 'cancelled')")


def upgrade() -> None:
    op.add_column(
        "rl_studies",
        sa.Column(
            "num_repeats",
            sa.Integer,
            nullable=False,
            server_default="0",
            comment="trials that train others again, on top of the budget",
        ),
    )
    op.add_column(
        "rl_trials",
        sa.Column(
            "repeats",
            sa.Integer,
            comment="number of the trial that it trains again by other seeds",
        ),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("rl_trials", "origin", comment="sampler, enqueued, racing or confirmation")
    op.create_index(
        op.f("ix_rl_trials_study_id_repeats"),
        "rl_trials",
        ["study_id", "repeats"],
        unique=True,
        sqlite_where=_CONFIRMS,
        postgresql_where=_CONFIRMS,
    )


def downgrade() -> None:
    op.drop_index("ix_rl_trials_study_id_repeats", "rl_trials")
    op.drop_column("rl_trials", "repeats")
    op.drop_column("rl_studies", "num_repeats")
