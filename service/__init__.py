from service import no_telemetry  # before any library that reports

__all__ = ["no_telemetry"]
