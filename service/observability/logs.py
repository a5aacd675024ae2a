"""Log lines as JSON, one object a line, for machines; or as text, for people.

    {"time": "2026-11-20T10:00:00.123Z", "level": "warning", "logger": "vitrine", "message": "answered", ...}

No line holds a user id, a picture or a body: a user is the keyed hash that the release knows them by.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from service import context


class JsonFormatter(logging.Formatter):
    """A record -> a line. `extra={"fields": {...}}` adds fields."""

    def format(self, record: logging.LogRecord) -> str:
        said: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (call := context.current()) is not None:
            said["trace_id"] = call.trace_id
        said |= getattr(record, "fields", {})
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


class TextFormatter(logging.Formatter):
    """The same for people: fields behind the message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        fields = " ".join(f"{name}={value}" for name, value in getattr(record, "fields", {}).items())
        return f"{super().format(record)} {fields}".rstrip()


def configure(style: str) -> None:
    """Have every logger of this process write to stderr so, whatever a library has set up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.root.handlers = [handler]
