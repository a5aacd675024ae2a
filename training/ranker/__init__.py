"""Fitting the ranker: factorization, the weights of the terms, calibration, tuning, segments of users."""
