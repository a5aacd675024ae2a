"""The tables of the store, for SQLite and PostgreSQL alike, and how a store comes to its newest version."""

from importlib import resources

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from service.errors import StoreTooNew

metadata = MetaData()

# one row; whoever writes holds it until the commit, so that numbers become visible in their order and without gaps
log = Table(
    "log",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("store", String(32), nullable=False),
    Column("last", BigInteger, nullable=False),
)
# the present state of every item that was ever changed; a withdrawn one stays, as what keeps older releases from it
items = Table(
    "items",
    metadata,
    Column("item_id", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("withdrawn", Boolean, nullable=False),
    Column("complete", Boolean, nullable=False),
    Column("attributes", Text, nullable=False),
    Column("pictures", Text),
    Column("at", Float, nullable=False),
    Index("items_by_sequence", "sequence"),
)
pictures = Table(
    "pictures",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("landmarks", LargeBinary),
    Column("at", Float, nullable=False),
)
# of pictures, as each encoder sees them: whoever needs one first leaves it for the others
vectors = Table(
    "vectors",
    metadata,
    Column("digest", String(64), primary_key=True),
    Column("encoder", String(64), primary_key=True),
    Column("precision", String(8), primary_key=True),
    Column("vector", LargeBinary, nullable=False),
)
events = Table(
    "events",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("user_key", String(32), nullable=False),
    Column("item_id", Text, nullable=False),
    Column("event", String(16), nullable=False),
    Column("value", Float),
    Column("timestamp", Float, nullable=False),
    Index("events_by_user", "user_key"),
    Index("events_by_time", "timestamp"),
)
links = Table(
    "links",
    metadata,
    Column("session_key", String(32), primary_key=True),
    Column("user_key", String(32), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Index("links_by_sequence", "sequence"),
    Index("links_by_user", "user_key"),
)
# a hash of the user's key, so that the key itself is nowhere in the store
erased = Table(
    "erased",
    metadata,
    Column("mark", String(32), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("at", Float, nullable=False),
    Index("erased_by_sequence", "sequence"),
)
# what was answered to an Idempotency-Key
requests = Table(
    "requests",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("reply", Text, nullable=False),
    Column("at", Float, nullable=False),
    Index("requests_by_time", "at"),
)

UPGRADE_LOCK = 7_218_041  # of PostgreSQL: pods that start together come one after another


def upgrade(engine: Engine) -> None:
    """Bring a store to the newest version. Raises StoreTooNew where it is newer than this code."""
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({UPGRADE_LOCK})"))
        else:
            connection.execute(text("BEGIN IMMEDIATE"))
        _require_known(connection)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _require_known(connection: Connection) -> None:
    found = MigrationContext.configure(connection).get_current_revision()
    script = ScriptDirectory.from_config(_config())
    if found is not None and found not in {each.revision for each in script.walk_revisions()}:
        raise StoreTooNew(
            f"the store has version {found}, and this code knows versions up to {script.get_current_head()}: upgrade "
            "vitrine, or name another store"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(resources.files("service.live") / "migrations"))
    return config
