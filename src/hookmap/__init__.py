"""Hooks in, maps out: feature maps of any layer and heatmaps of any decision of a PyTorch vision model."""

from hookmap.capture import capture

__all__ = ["capture"]
__version__ = "0.1.0"
