"""Runs the migrations on the connection that `migrate` opened; Alembic executes this file."""

from alembic import context

from ci_bot.store.tables import metadata

# SQLite's DDL is transactional too as long as we begin the transaction ourselves, which we do.
context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
