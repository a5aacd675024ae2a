"""The first version: catalogue changes, pictures and their vectors, events, sessions, erasures."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables, and the one row of the log."""
    _log_and_requests()
    _items()
    _users()


def _log_and_requests() -> None:
    log = op.create_table(
        "log",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("store", sa.String(32), nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(log, [{"id": 1, "store": uuid.uuid4().hex, "last": 0}])
    op.create_table(
        "requests",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("reply", sa.Text, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("requests_by_time", "requests", ["at"])


def _items() -> None:
    op.create_table(
        "items",
        sa.Column("item_id", sa.Text, primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("withdrawn", sa.Boolean, nullable=False),
        sa.Column("complete", sa.Boolean, nullable=False),
        sa.Column("attributes", sa.Text, nullable=False),
        sa.Column("pictures", sa.Text),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("items_by_sequence", "items", ["sequence"])
    op.create_table(
        "pictures",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("landmarks", sa.LargeBinary),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_table(
        "vectors",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("encoder", sa.String(64), primary_key=True),
        sa.Column("precision", sa.String(8), primary_key=True),
        sa.Column("vector", sa.LargeBinary, nullable=False),
    )


def _users() -> None:
    op.create_table(
        "events",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("user_key", sa.String(32), nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("event", sa.String(16), nullable=False),
        sa.Column("value", sa.Float),
        sa.Column("timestamp", sa.Float, nullable=False),
    )
    op.create_index("events_by_user", "events", ["user_key"])
    op.create_index("events_by_time", "events", ["timestamp"])
    op.create_table(
        "links",
        sa.Column("session_key", sa.String(32), primary_key=True),
        sa.Column("user_key", sa.String(32), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
    )
    op.create_index("links_by_sequence", "links", ["sequence"])
    op.create_index("links_by_user", "links", ["user_key"])
    op.create_table(
        "erased",
        sa.Column("mark", sa.String(32), primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("erased_by_sequence", "erased", ["sequence"])
