"""The modes: one module for each value of `mode=`, with a function of the same name."""
