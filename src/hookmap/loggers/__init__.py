"""Results to experiment trackers: a :class:`~hookmap.loggers.logger.Logger` for each."""
