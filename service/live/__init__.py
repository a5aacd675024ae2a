"""What changed since the release: the store of changes and events, and the overlay that each process keeps of it."""
