"""find the best trial of a study without reading all of them

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_rl_trials_study_id_state_value_number",
        "rl_trials",
        ["study_id", "state", "value", "number"],
    )
    op.drop_index("ix_rl_trials_study_id_state", table_name="rl_trials")


def downgrade() -> None:
    op.create_index("ix_rl_trials_study_id_state", "rl_trials", ["study_id", "state"])
    op.drop_index("ix_rl_trials_study_id_state_value_number", table_name="rl_trials")
