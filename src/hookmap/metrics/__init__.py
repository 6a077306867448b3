"""Heatmaps in numbers."""
