"""What operators see of the service: metrics, log lines, traces, and the measured recall of the index."""
