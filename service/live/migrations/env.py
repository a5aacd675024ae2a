"""How Alembic finds the store: on the connection that `schema.upgrade` holds."""

from alembic import context

from service.live.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
