"""The items: their titles and attributes, which pass a filter, what a prior knows of them, and their small pictures."""
