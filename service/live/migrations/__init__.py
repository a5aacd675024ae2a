"""The versions of the store, in the order in which they were made."""
