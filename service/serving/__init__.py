"""How a release answers live requests: opening it, batching requests, replacing it, trying a candidate beside it."""
