"""The stages of one training, in the order in which they ask for each other."""
