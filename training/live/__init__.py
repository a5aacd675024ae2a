"""The store of changes and events, as training reads it: merged with a catalogue folder into another one."""
