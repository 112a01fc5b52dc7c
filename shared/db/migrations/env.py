"""What Alembic runs around the migrations: they go through the connection that it was given."""

from alembic import context

from rejoin.shared.db.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the caller's transaction holds all of it
)
context.run_migrations()
