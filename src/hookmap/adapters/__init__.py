"""The model under another way of calling it, and the forms that outputs have."""
