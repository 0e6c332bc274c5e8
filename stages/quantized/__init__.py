"""Checkpoints that are quantized already, read one tensor at a time as if they were dense."""
