"""What GEARS is given, its package, and scores of what it predicts."""
