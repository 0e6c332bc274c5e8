"""Compressing: one decoder layer at a time, transforms first, then one solver."""
