"""Which release is live: the registry, the gate, the moves of aliases, and what follows them."""
