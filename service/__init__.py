"""What runs in the container: it opens a release and answers requests. It never imports `training`."""

from service import no_telemetry  # before any library that reports

__all__ = ["no_telemetry"]
