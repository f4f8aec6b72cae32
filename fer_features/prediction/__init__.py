"""What is taken away: a run made whole, from photographs to probabilities."""
