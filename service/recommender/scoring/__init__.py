"""From candidates to an answer: the named terms of the score, their weights, diversity, and the reasons."""
