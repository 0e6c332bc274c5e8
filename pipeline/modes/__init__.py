"""Modes of the command line: one module for each `mode=NAME`, with a function of that name."""
