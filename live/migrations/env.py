"""How Alembic runs here: on a connection it is given, in a transaction that is already open.

`live.migrate_sql` gives both; there is no configuration file and no URL of its own, so a migration
can never meet another database than the program does.
"""

from alembic import context

import live.schema_sql  # noqa: F401 - joins its tables to commerce's metadata
from commerce.schema_sql import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_type=True,
    render_as_batch=False,
)
with context.begin_transaction():
    context.run_migrations()
