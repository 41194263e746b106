"""Alembic runs this file: the steps, on the connection and in the transaction that `migrate` hands over."""

from alembic import context

from gpusched.scheduler.store.tables import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    # SQLite cannot alter a column in place: Alembic makes the table anew and copies the rows.
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
