"""Results to experiment trackers."""
