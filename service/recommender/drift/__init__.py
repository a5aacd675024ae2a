"""Drift: how far the photos that come in are from those that a release expects."""
