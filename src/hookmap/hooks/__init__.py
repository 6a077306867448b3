"""Looking into a model: layers found and read, hooks that record, differentiate and replay."""
