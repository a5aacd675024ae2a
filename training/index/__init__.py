"""Embedding the catalogue, building the index, and measuring what it finds and recognises."""
