"""Alembic's entry: runs the migrations on the connection that `service.store.migrate` gives."""

from __future__ import annotations

from alembic import context

from ridgeline.service.store.migrate import VERSION_TABLE, is_ours
from ridgeline.service.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_name=is_ours,
)
context.run_migrations()
