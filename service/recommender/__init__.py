"""What the answer is: query, candidates, scores, recommendation, and the release that holds the data for them.
What is here takes and returns plain values, and knows no HTTP, no settings and no database."""
