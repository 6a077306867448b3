"""From anything image-like to the model's input, and from there back to the original's pixels."""
