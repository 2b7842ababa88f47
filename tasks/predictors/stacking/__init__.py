"""Learning from the scores of other methods."""
