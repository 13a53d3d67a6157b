"""Stage 1 of an evaluation: a matcher runs over all pairs and its matches are stored."""
