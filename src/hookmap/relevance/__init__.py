"""Relevance: gradient x input with a modified backward, by hooks on nothing: the graph itself is walked."""
