"""Sources of data sets and how they are read."""
