"""Decoder layers compressed in parts: which Linears are in which, and how they are joined."""
