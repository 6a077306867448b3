"""Sentences about things: what was meant, how many there are, what an error says."""

from __future__ import annotations
