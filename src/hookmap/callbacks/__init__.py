"""Watch a model while it trains, and leave the training as it would be."""

from hookmap.callbacks.probe import Probe

__all__ = ["Probe"]
