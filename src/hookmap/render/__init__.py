"""Tensors to pictures. Nothing here computes anything new."""
