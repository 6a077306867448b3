"""What comes out: tensors that draw themselves when asked."""
