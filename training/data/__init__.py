"""The data before training: reading and checking a catalogue, pictures, splits, features, and the drawn demo shop."""
